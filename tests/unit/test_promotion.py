"""Promotion: exactly one of two wins, whoever is killed; and back again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from small_project import ROOT, Project

from flows import champion as program
from stages.common.errors import AttuneError
from stages.common.tracking import promotion, store
from stages.common.tracking.champions import CHALLENGER, CHAMPION, DEMOTED_TAG, Entry, Overtaken
from stages.common.tracking.promotion import Standing, demotion, forgive, promote, roll_back, standing
from stages.common.tracking.runs import MODEL_TAG

NAME = "tests"
ROUNDS = 8


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
    return filled(store.connect())


def filled(client: MlflowClient) -> MlflowClient:
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
        promote(client, NAME, version, standing(client, NAME))


def run_of(client: MlflowClient, version: int) -> str:
    return str(client.get_model_version(NAME, str(version)).run_id)


# ── promotion ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_promotion_moves_the_alias_and_is_written_down(client: MlflowClient) -> None:
    assert standing(client, NAME) == Standing(None, [])
    promoted(client, 1, 3)
    now = standing(client, NAME)
    assert aliases(client) == {CHAMPION: 3}
    assert [(entry.version, entry.before, entry.done) for entry in now.entries] == [(1, None, True), (3, 1, True)]


def test_a_name_that_nothing_is_registered_under_has_no_champion(client: MlflowClient) -> None:
    assert standing(client, "nothing of the name") == Standing(None, [])


def test_a_promotion_against_a_champion_of_the_past_is_refused(client: MlflowClient) -> None:
    seen = standing(client, NAME)
    promoted(client, 1)
    with pytest.raises(Overtaken):
        promote(client, NAME, 2, seen)
    seen = standing(client, NAME)
    client.set_registered_model_alias(NAME, CHAMPION, "3")  # by hand
    with pytest.raises(Overtaken):
        promote(client, NAME, 2, seen)
    assert aliases(client) == {CHAMPION: 3}


def test_a_champion_set_by_hand_is_the_champion(client: MlflowClient) -> None:
    promoted(client, 1)
    client.set_registered_model_alias(NAME, CHAMPION, "2")
    assert standing(client, NAME).champion == 2
    promoted(client, 3)
    assert aliases(client) == {CHAMPION: 3}
    assert standing(client, NAME).line == [1, 2, 3]
    client.delete_registered_model_alias(NAME, CHAMPION)
    assert standing(client, NAME).champion is None


def test_the_ledger_outlives_the_version_that_it_began_with(client: MlflowClient) -> None:
    promoted(client, 1, 2)
    client.delete_model_version(NAME, "1")
    assert [entry.version for entry in standing(client, NAME).entries] == [1, 2]
    promoted(client, 3)
    assert standing(client, NAME).line == [1, 2, 3]


def test_a_ledger_whose_run_was_deleted_is_said_to_be(client: MlflowClient) -> None:
    promoted(client, 1)
    client.delete_run(run_of(client, 1))
    with pytest.raises(AttuneError, match="restore") as told:
        standing(client, NAME)
    assert f"mlflow runs restore --run-id {run_of(client, 1)}" in told.value.fix
    client.restore_run(run_of(client, 1))
    assert standing(client, NAME).champion == 1
    client.delete_registered_model_alias(NAME, CHAMPION)


def test_a_version_whose_run_was_deleted_keeps_no_ledger(client: MlflowClient) -> None:
    client.delete_run(run_of(client, 1))
    promoted(client, 2, 3)
    assert [entry.version for entry in standing(client, NAME).entries] == [2, 3]
    assert any(key.startswith("champion.") for key in client.get_run(run_of(client, 2)).data.params)


def test_a_version_deleted_while_it_was_promoted_stands_in_nobodys_way(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(client, 1)
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "finish_entry", lambda *_: None)
        promoted(client, 2)
    client.delete_model_version(NAME, "2")
    assert standing(client, NAME).champion == 1
    promoted(client, 3)
    assert aliases(client) == {CHAMPION: 3}


# ── at once ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WORKER = """
import sys
from stages.common.tracking.champions import Overtaken
from stages.common.tracking.promotion import promote, standing
from stages.common.tracking.store import connect
client, version = connect(), int(sys.argv[1])
for line in sys.stdin:
    seen = standing(client, "tests")
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        promote(client, "tests", version, seen)
        print("won", flush=True)
    except Overtaken:
        print("overtaken", standing(client, "tests").champion, flush=True)
"""


@contextmanager
def workers(uri: str, *versions: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that each promote a version of their own when they are told to."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": uri}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(version)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in versions
    ]
    yield started
    for process in started:
        assert process.stdin and process.stdout
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def tell(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Tell all of them to go on, and return what each says then."""
    for process in processes:
        assert process.stdin
        process.stdin.write("on\n")
        process.stdin.flush()
    return [process.stdout.readline().strip() if process.stdout else "" for process in processes]


def race(client: MlflowClient, uri: str, rounds: int) -> None:
    winners = []
    with workers(uri, 1, 2) as processes:
        for number in range(1, rounds + 1):
            assert tell(processes) == ["ready", "ready"]
            said = tell(processes)
            assert said.count("won") == 1, said
            winners.append(said.index("won") + 1)
            assert f"overtaken {winners[-1]}" in said, "the other one judges beside the winner"
            assert aliases(client)[CHAMPION] == winners[-1]
            assert [entry.version for entry in standing(client, NAME).entries] == winners
            assert len(winners) == number


def test_of_two_processes_that_promote_at_once_exactly_one_wins(client: MlflowClient) -> None:
    race(client, store.tracking_uri(), ROUNDS)


KILLED = """
import os, signal
from stages.common.tracking import promotion, store
promotion.finish_entry = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
client = store.connect()
promotion.promote(client, "tests", 2, promotion.standing(client, "tests"))
"""


def test_what_a_killed_process_decided_is_finished_by_the_next(client: MlflowClient, project: Project) -> None:
    promoted(client, 1)
    client.set_registered_model_alias(NAME, CHALLENGER, "2")
    assert project.run("-c", KILLED, MLFLOW_TRACKING_URI=store.tracking_uri()).returncode == -signal.SIGKILL
    assert aliases(client) == {CHAMPION: 1, CHALLENGER: 2}, "killed before the alias moved"
    assert standing(client, NAME).champion == 2
    assert aliases(client) == {CHAMPION: 2}
    client.set_registered_model_alias(NAME, CHAMPION, "1")  # by hand, afterwards: finished is finished
    assert standing(client, NAME).champion == 1


def test_one_that_slept_through_what_came_next_does_not_undo_it(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, entry = promotion.finish_entry, []
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "finish_entry", lambda *arguments: entry.append(arguments))
        promoted(client, 1)
    assert standing(client, NAME).champion == 1, "finished by whoever looks"
    client.set_registered_model_alias(NAME, CHAMPION, "3")  # by hand
    finish(*entry[0])
    assert aliases(client) == {CHAMPION: 3}
    promoted(client, 2)
    finish(*entry[0])
    assert aliases(client) == {CHAMPION: 2}


def test_one_that_fell_asleep_a_step_later_puts_the_last_champion_back(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_alias, slept = MlflowClient.set_registered_model_alias, []

    def sleepy(self: MlflowClient, name: str, alias: str, version: str) -> None:
        if not slept:  # looked, and fell asleep: meanwhile the others finish this promotion, and make the next
            slept.append(version)
            promoted(client, 2)
        set_alias(self, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", sleepy)
    promoted(client, 1)
    assert slept == ["1"]
    assert aliases(client) == {CHAMPION: 2}
    assert [entry.version for entry in standing(client, NAME).entries] == [1, 2]


def test_a_promotion_stands_though_the_alias_could_not_be_set_at_once(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ConnectionError("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", broken)
        promoted(client, 1)
    assert "the line is dead; version 1 is the champion" in capsys.readouterr().err
    assert standing(client, NAME).champion == 1
    assert aliases(client) == {CHAMPION: 1}


def test_an_entry_that_was_written_counts_though_the_answer_was_lost(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    log_param = MlflowClient.log_param

    def lossy(self: MlflowClient, *arguments: str) -> None:
        log_param(self, *arguments)
        raise MlflowException("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_param", lossy)
        promoted(client, 1)
    assert standing(client, NAME).champion == 1


# ── rollback ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rollback_puts_the_champion_before_back_and_says_why(client: MlflowClient) -> None:
    promoted(client, 1, 2, 3)
    assert roll_back(client, NAME, reason="it\nswears") == (3, 2)
    assert aliases(client) == {CHAMPION: 2}
    assert client.get_model_version(NAME, "3").tags[DEMOTED_TAG].endswith(": it swears")
    assert demotion(client, NAME, MODEL_TAG, "three") == (3, client.get_model_version(NAME, "3").tags[DEMOTED_TAG])
    assert demotion(client, NAME, MODEL_TAG, "two") is None


def test_rolling_back_again_goes_further_back_until_there_is_nothing_before(client: MlflowClient) -> None:
    promoted(client, 1, 2, 3)
    assert roll_back(client, NAME) == (3, 2)
    assert roll_back(client, NAME) == (2, 1)
    with pytest.raises(AttuneError, match="no champion was in use before version 1"):
        roll_back(client, NAME)
    assert aliases(client) == {CHAMPION: 1}


def test_what_was_promoted_after_a_rollback_goes_back_past_it(client: MlflowClient) -> None:
    promoted(client, 1, 2)
    roll_back(client, NAME)
    promoted(client, 3)
    assert roll_back(client, NAME) == (3, 1)


def test_a_rollback_can_name_an_earlier_champion_but_no_other_version(client: MlflowClient) -> None:
    promoted(client, 1, 2)
    with pytest.raises(AttuneError, match="version 3 was never champion"):
        roll_back(client, NAME, to=3)
    with pytest.raises(AttuneError, match="version 2 is the champion already"):
        roll_back(client, NAME, to=2)
    promoted(client, 3)
    assert roll_back(client, NAME, to=1) == (3, 1)
    with pytest.raises(AttuneError, match="rolled back itself"):
        roll_back(client, NAME, to=3)
    assert aliases(client) == {CHAMPION: 1}


def test_a_rollback_leaves_out_versions_that_are_gone(client: MlflowClient) -> None:
    promoted(client, 1, 2, 3)
    client.delete_model_version(NAME, "2")
    assert roll_back(client, NAME) == (3, 1)


def test_without_a_champion_there_is_nothing_to_roll_back(client: MlflowClient) -> None:
    with pytest.raises(AttuneError, match="no champion"):
        roll_back(client, NAME)


def test_a_rollback_gives_way_to_a_promotion_that_was_quicker(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(client, 1, 2)
    change = promotion._change

    def slow(*arguments: object, **more: object) -> None:
        monkeypatch.setattr(promotion, "_change", change)
        promoted(client, 3)
        change(*arguments, **more)

    monkeypatch.setattr(promotion, "_change", slow)
    with pytest.raises(AttuneError, match="somebody else changed the champion"):
        roll_back(client, NAME)
    assert aliases(client) == {CHAMPION: 3}
    assert DEMOTED_TAG not in client.get_model_version(NAME, "2").tags


def test_a_rollback_of_a_killed_process_is_finished_with_its_reason(client: MlflowClient, project: Project) -> None:
    promoted(client, 1, 2)
    rollback = KILLED.replace(
        'promote(client, "tests", 2, promotion.standing(client, "tests"))', 'roll_back(client, "tests", reason="why")'
    )
    assert project.run("-c", rollback, MLFLOW_TRACKING_URI=store.tracking_uri()).returncode == -signal.SIGKILL
    assert standing(client, NAME).champion == 1
    assert client.get_model_version(NAME, "2").tags[DEMOTED_TAG].endswith("why")


def test_a_model_that_is_forgiven_may_be_champion_again(client: MlflowClient) -> None:
    promoted(client, 1, 2)
    roll_back(client, NAME)
    forgive(client, NAME, 2)
    assert demotion(client, NAME, MODEL_TAG, "two") is None
    promoted(client, 2)
    assert standing(client, NAME).line == [1, 2]
    for version in (1, 7):
        with pytest.raises(AttuneError, match=f"no version {version} of tests was rolled back"):
            forgive(client, NAME, version)


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=12))
def test_going_back_never_stays_where_it_is_and_comes_to_an_end(steps: list[tuple[int, bool]]) -> None:
    entries: list[Entry] = []
    now: int | None = None
    for version, back in steps:
        line = Standing(now, entries).line
        assert line[-1:] == ([now] if now else [])
        if back and len(line) > 1:
            entries.append(Entry(len(entries) + 1, line[-2], now, now, "", ""))
            now = line[-2]
            assert Standing(now, entries).line == line[:-1]
        elif version != now:
            entries.append(Entry(len(entries) + 1, version, now, None, "", ""))
            now = version


# ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────────


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_the_program_rolls_back_and_lists_who_was_champion(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    client.log_metric(run_of(client, 1), "test_accuracy", 0.8125)
    promoted(client, 1, 2)
    assert program.main(["--rollback", "--reason", "it \x1b[31mswears"]) == 0
    text = said(capsys)
    assert "version 2 was rolled back; version 1 is the champion of tests" in text
    assert "3. back for 2" in text
    assert "0.8125" in text
    assert "it ⟨U+001B⟩[31mswears" in text
    assert aliases(client) == {CHAMPION: 1}
    assert program.main(["--forgive", "2"]) == 0
    assert "version 2 of tests may be judged again" in said(capsys)
    assert program.main([]) == 0
    assert "swears" not in said(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rollback"], "no champion that could be rolled back"),
        (["--forgive", "1"], "no version 1 of tests was rolled back"),
        (["--to", "1"], "add --rollback"),
    ],
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
