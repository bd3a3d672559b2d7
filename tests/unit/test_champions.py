"""Promotion, rollback, and who was champion when."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from small_project import Project

from flows import champion as program
from stages.common.errors import AttuneError
from stages.common.tracking import champions, store
from stages.common.tracking.champions import (
    CHALLENGER,
    CHAMPION,
    DEMOTED_TAG,
    PROMOTED_TAG,
    TIMES,
    Overtaken,
    champion_number,
    demotion,
    previous_champion,
    promote,
    roll_back,
    version_tags,
)
from stages.common.tracking.runs import MODEL_TAG

NAME = "tests"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose tables are made: that takes MLflow seconds."""
    folder = tmp_path_factory.mktemp("empty")
    MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_registered_models()
    return folder / "mlflow.db"


@pytest.fixture
def client(project: Project, empty: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A registry with three versions of a model, and no champion yet."""
    (project.root / "mlflow.db").write_bytes(empty.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    client = store.connect()
    experiment = client.create_experiment("tests", artifact_location="nowhere")
    client.create_registered_model(NAME)
    for digest in ("one", "two", "three"):
        run_id = client.create_run(experiment).info.run_id
        client.create_model_version(NAME, f"runs:/{run_id}/model", run_id=run_id, tags={MODEL_TAG: digest})
    return client


def aliases(client: MlflowClient) -> dict[str, int]:
    return {alias: int(version) for alias, version in client.get_registered_model(NAME).aliases.items()}


def promoted(client: MlflowClient, *versions: int) -> None:
    for version in versions:
        promote(client, NAME, version, champion_number(client, NAME))


def by_hand(client: MlflowClient, version: int) -> None:
    client.set_registered_model_alias(NAME, CHAMPION, str(version))


# ── promotion ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_promotion_moves_the_alias_and_keeps_when(client: MlflowClient) -> None:
    client.set_registered_model_alias(NAME, CHALLENGER, "3")
    promoted(client, 1, 3)
    assert aliases(client) == {CHAMPION: 3}
    assert previous_champion(client, NAME) == 1
    tags = version_tags(client, NAME)
    assert tags[1][PROMOTED_TAG] < tags[3][PROMOTED_TAG] and PROMOTED_TAG not in tags[2]
    for _ in range(TIMES):
        promoted(client, 1, 3)
    times = version_tags(client, NAME)[3][PROMOTED_TAG].split()
    assert len(times) == TIMES and times == sorted(set(times))


@pytest.mark.parametrize("how", ["promoted", "by hand", "alias deleted", "version deleted"])
def test_a_model_that_was_judged_beside_another_champion_is_not_promoted(client: MlflowClient, how: str) -> None:
    promoted(client, 1)
    seen = champion_number(client, NAME)
    if how == "promoted":
        promoted(client, 3)
    elif how == "by hand":
        by_hand(client, 3)
    elif how == "alias deleted":
        client.delete_registered_model_alias(NAME, CHAMPION)
    else:
        client.delete_model_version(NAME, "1")
    expected = aliases(client)
    with pytest.raises(Overtaken):
        promote(client, NAME, 2, seen)
    assert aliases(client) == expected


def test_the_champion_is_asked_for_right_before_it_is_replaced(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(client, 1)
    get_model_version = MlflowClient.get_model_version

    def slow(self: MlflowClient, name: str, version: str) -> object:
        by_hand(client, 3)
        return get_model_version(self, name, version)

    monkeypatch.setattr(MlflowClient, "get_model_version", slow)
    with pytest.raises(Overtaken):
        promote(client, NAME, 2, 1)
    assert aliases(client) == {CHAMPION: 3}


# ── rollback ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rollback_puts_the_previous_champion_back_and_says_why(client: MlflowClient) -> None:
    promoted(client, 1, 2, 3)
    assert roll_back(client, NAME, reason="it\nswears") == (3, 2)
    assert aliases(client) == {CHAMPION: 2}
    why = version_tags(client, NAME)[3][DEMOTED_TAG]
    assert why.endswith(": it swears")
    assert demotion(client, NAME, "three") == (3, why)
    assert demotion(client, NAME, "two") is None


@pytest.mark.parametrize("deleted", [None, "2"])
def test_rolling_back_again_goes_further_back_until_there_is_nothing_before(
    client: MlflowClient, deleted: str | None
) -> None:
    promoted(client, 1, 2, 3)
    if deleted:
        client.delete_model_version(NAME, deleted)
        assert roll_back(client, NAME) == (3, 1)
    else:
        assert [roll_back(client, NAME) for _ in range(2)] == [(3, 2), (2, 1)]
    with pytest.raises(AttuneError, match="no champion is known that was in use before version 1"):
        roll_back(client, NAME)
    assert aliases(client) == {CHAMPION: 1}


def test_what_was_promoted_after_a_rollback_goes_back_past_it(client: MlflowClient) -> None:
    promoted(client, 1, 2)
    roll_back(client, NAME)
    promoted(client, 3)
    assert roll_back(client, NAME) == (3, 1)


def test_a_rollback_can_name_an_earlier_champion_also_one_that_was_rolled_back(client: MlflowClient) -> None:
    promoted(client, 1, 2)
    with pytest.raises(AttuneError, match="version 3 is not known to have been champion") as refused:
        roll_back(client, NAME, to=3)
    assert "alias champion" in refused.value.fix
    with pytest.raises(AttuneError, match="version 2 is the champion already"):
        roll_back(client, NAME, to=2)
    promoted(client, 3)
    assert roll_back(client, NAME, to=1) == (3, 1)
    assert roll_back(client, NAME, to=3, reason="it was the other one") == (1, 3)
    assert demotion(client, NAME, "three") is None
    assert demotion(client, NAME, "one") is not None
    assert aliases(client) == {CHAMPION: 3}


@pytest.mark.parametrize("first", ["of the first edition", "promoted once, then by hand"])
def test_a_champion_that_has_the_alias_alone_is_gone_back_to(client: MlflowClient, first: str) -> None:
    """As in a registry of the first edition, which kept its history elsewhere."""
    if first != "of the first edition":
        promoted(client, 1, 2)
    by_hand(client, 1)
    assert champion_number(client, NAME) == 1
    promoted(client, 3)
    assert roll_back(client, NAME) == (3, 1)


def test_without_a_champion_there_is_nothing_to_roll_back(client: MlflowClient) -> None:
    with pytest.raises(AttuneError, match="no champion"):
        roll_back(client, NAME)
    assert champion_number(client, "nothing of the name") is None


def test_a_rollback_gives_way_to_a_promotion_that_was_quicker(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(client, 1, 2)

    def slow(*arguments: object) -> None:
        by_hand(client, 3)
        promote(*arguments)

    monkeypatch.setattr(champions, "promote", slow)
    with pytest.raises(AttuneError, match="another model became champion"):
        roll_back(client, NAME)
    assert aliases(client) == {CHAMPION: 3}


# ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────────


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_the_program_rolls_back_and_lists_who_was_champion(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    client.log_metric(client.get_model_version(NAME, "1").run_id, "test_accuracy", 0.8125)
    promoted(client, 1, 2)
    assert program.main(["--rollback", "--reason", "it \x1b[31mswears"]) == 0
    text = said(capsys)
    assert "version 2 was rolled back; version 1 is the champion of tests" in text
    assert "0.8125" in text
    assert "it ⟨U+001B⟩[31mswears" in text
    assert aliases(client) == {CHAMPION: 1}
    day = version_tags(client, NAME)[2][PROMOTED_TAG][:10]
    assert text.count(day) == 4, "two times of version 1, one of version 2, and when that was rolled back"
    assert program.main(["--rollback", "--to", "2"]) == 0
    assert "swears" not in said(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--rollback"], "no champion that could be rolled back"), (["--to", "1"], "add --rollback")],
)
def test_the_program_says_what_it_cannot_do(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert program.main(arguments) == 1
    assert message in said(capsys)


def test_the_program_says_when_nothing_is_registered_or_reachable(
    project: Project, empty: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "mlflow.db").write_bytes(empty.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert program.main([]) == 1
    assert "tests has no versions in MLflow yet" in said(capsys)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert program.main(["--rollback"]) == 1
    assert "MLflow cannot be reached" in said(capsys)
