"""Promotion, rollback, and who was champion when."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows import champion as program
from stages.common.errors import AttuneError
from stages.tracking import store
from stages.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    DEMOTED_TAG,
    PROMOTED_TAG,
    Overtaken,
    champion_number,
    demotion,
    previous_champion,
    promote,
    roll_back,
    version_tags,
)
from stages.tracking.runs import MODEL_TAG
from tests.projects import Project

NAME = "tests"


@pytest.fixture
def client(project: Project, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A registry with three versions of a model, and no champion yet."""
    project.file("mlflow.db", empty_store.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    client = store.connect()
    experiment = client.create_experiment("tests", artifact_location="s3://nowhere")
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


def test_no_version_whose_files_are_gone_is_rolled_back_to_or_served(
    client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = (Path.cwd() / "mlruns/gone").as_uri()
    client.create_model_version(NAME, gone)
    promoted(client, 4, 2)
    with pytest.raises(AttuneError, match=r"the files of tests version 4 are not to be had at file:///.*/mlruns/gone"):
        roll_back(client, NAME)
    assert aliases(client) == {CHAMPION: 2} and DEMOTED_TAG not in version_tags(client, NAME)[2]
    by_hand(client, 4)
    assert program.main(["--uri"]) == 1
    assert "put them back; or make the model again: make run" in capsys.readouterr().err


def test_a_promotion_moves_the_alias_and_keeps_when(client: MlflowClient) -> None:
    client.set_registered_model_alias(NAME, CHALLENGER, "3")
    promoted(client, 1, 3)
    assert aliases(client) == {CHAMPION: 3}
    assert previous_champion(client, NAME) == 1
    tags = version_tags(client, NAME)
    assert tags[1][PROMOTED_TAG] < tags[3][PROMOTED_TAG] and PROMOTED_TAG not in tags[2]


def test_the_champion_is_asked_for_right_before_it_is_replaced(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(client, 1, 2)
    set_tag = MlflowClient.set_model_version_tag

    def slow(self: MlflowClient, *arguments: str) -> None:
        by_hand(client, 3)
        set_tag(self, *arguments)

    monkeypatch.setattr(MlflowClient, "set_model_version_tag", slow)
    for change in (lambda: promote(client, NAME, 1, 2), lambda: roll_back(client, NAME)):
        by_hand(client, 2)
        with pytest.raises(Overtaken):
            change()
        assert aliases(client) == {CHAMPION: 3}


def test_rolling_back_again_goes_further_back_until_there_is_nothing_before(client: MlflowClient) -> None:
    by_hand(client, 1)  # a champion all the same
    promoted(client, 2)
    assert roll_back(client, NAME, reason="it\nswears") == (2, 1)
    why = version_tags(client, NAME)[2][DEMOTED_TAG]
    assert why.endswith(": it swears")
    assert (demotion(client, NAME, "two"), demotion(client, NAME, "one")) == ((2, why), None)
    promoted(client, 3)
    assert roll_back(client, NAME) == (3, 1), "past what was rolled back before"
    with pytest.raises(AttuneError, match="no champion is known that was in use before version 1"):
        roll_back(client, NAME)
    assert aliases(client) == {CHAMPION: 1}


def test_a_rollback_can_name_an_earlier_champion_also_one_that_was_rolled_back(client: MlflowClient) -> None:
    promoted(client, 1, 2)
    for version in (2, 3):
        with pytest.raises(AttuneError, match=f"version {version} is no earlier champion") as refused:
            roll_back(client, NAME, to=version)
        assert "alias champion" in refused.value.fix
    promoted(client, 3)
    assert roll_back(client, NAME, to=1) == (3, 1)
    assert roll_back(client, NAME, to=3, reason="it was the other one") == (1, 3)
    assert demotion(client, NAME, "three") is None
    assert demotion(client, NAME, "one") is not None
    assert aliases(client) == {CHAMPION: 3}


def output(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_the_program_rolls_back_and_lists_who_was_champion(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    client.log_metric(client.get_model_version(NAME, "1").run_id, "test_accuracy", 0.8125)
    promoted(client, 1, 2)
    assert program.main(["--rollback", "--reason", "it \x1b[31mswears"]) == 0
    text = output(capsys)
    assert "version 2 was rolled back; version 1 is the champion of tests" in text
    assert "0.8125" in text and "it ⟨U+001B⟩[31mswears" in text
    day = version_tags(client, NAME)[2][PROMOTED_TAG][:10]
    assert text.count(day) == 3, "when both were put into use, and when version 2 was rolled back"


def test_the_program_says_what_it_cannot_do(
    project: Project, empty_store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.file("mlflow.db", empty_store.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    for arguments, message in (
        (["--to", "1"], "add --rollback"),
        (["--rollback"], "no champion that could be rolled back"),
        ([], "tests has no versions in MLflow yet"),
    ):
        assert program.main(arguments) == 1
        assert message in output(capsys)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert program.main(["--rollback"]) == 1
    assert "MLflow cannot be asked" in output(capsys)
