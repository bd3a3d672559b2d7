"""A review in worktrees of its own: which results it takes, what it makes again, and that nobody's checkout changes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.review import NOT_REPRODUCED, main
from flows.reviewing.commits import find_commits
from flows.reviewing.findings import EnvironmentChange, Review
from flows.reviewing.rebuild import _threads
from flows.reviewing.review import Request, review
from flows.reviewing.revision import Revision
from flows.reviewing.tolerance import recorded_environment
from flows.reviewing.worktrees import KEPT, NAMED, lock_at, stale_stages
from flows.worktree import WORKTREES
from stages.common.environment import tags
from stages.common.errors import AttuneError
from stages.common.graph import read_graph
from stages.common.tracking.runs import MODEL_TAG, TRAININGS
from tests.conftest import PROJECT
from tests.unit.small_checkout import FILES, Checkout, dvc, make_checkout, repro


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A checkout on a branch, whose pipeline has run and is committed, one commit after main's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mine = make_checkout(tmp_path / "home")
    mine.write("data/inbox/rows.csv", "a\n")
    run(mine)
    mine.git("checkout", "-q", "-b", "feature")
    mine.write("params.yaml", "seed: 22\n")
    run(mine)
    return mine


def run(mine: Checkout) -> str:
    repro(mine.root)
    return mine.commit()


def reviewed(mine: Checkout, base: str | None = None, head: str = "HEAD", **how: Any) -> Review:
    request = Request(base, head, logs=mine.root.parent / "logs", **how)
    found = review(mine.root, request, lambda _: None)
    assert how.get("keep") or left(mine) == []
    return found


def left(mine: Checkout) -> list[str]:
    """Return what reviews have left in the checkout; whether somebody holds it is found out with a file of its own."""
    folder = mine.root / WORKTREES
    assert mine.git("worktree", "list").count("\n") == sum(path.is_dir() for path in folder.iterdir())
    names = {path.name for path in folder.iterdir() if path.name != "lock"}
    return sorted(name for name in names if name.removesuffix(".lock") not in names - {name})


# ── what is reproduced ────────────────────────────────────────────────────────────────────────────────────────────────
def test_recorded_results_that_come_out_again_are_identical(checkout: Checkout) -> None:
    found = reviewed(checkout)
    assert (found.rebuild.verdict, found.asked_base, found.behind) == ("identical", "main", 0)
    assert list(found.rebuild.seconds) == ["make", "judge"]
    assert found.base and (found.base.results, found.head.results) == ("recorded", "recorded")
    assert found.base.commit == checkout.git("rev-parse", "main")
    assert found.changes and [one.key for one in found.changes.params] == ["seed"]
    assert "Running stage 'make'" in (checkout.root.parent / "logs" / "rebuild" / "make.log").read_text()


def test_a_stage_that_makes_something_else_each_time_is_not_reproduced(checkout: Checkout) -> None:
    checkout.write(
        "judge.py", FILES["judge.py"] + "import time\nopen('reports/metrics.json', 'a').write(str(time.time()))"
    )
    run(checkout)
    found = reviewed(checkout)
    assert (found.rebuild.verdict, found.rebuild.first) == ("different", "judge")


def test_stages_of_a_rebuild_find_neither_earlier_reports_nor_the_projects_mlflow(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRACKING", "REGISTRY"):
        monkeypatch.setenv(f"MLFLOW_{name}_URI", f"sqlite:///{tmp_path}/ours.db")
    more = (
        "import os\nprint(Path('reports/metrics.json').exists(), {k for k in os.environ.items() if 'MLFLOW' in k[0]})\n"
    )
    checkout.commit(**{"judge.py": FILES["judge.py"].replace("Path(", f"{more}Path(", 1)})
    reviewed(checkout)
    said = (checkout.root.parent / "logs" / "rebuild" / "judge.log").read_text()
    assert "False {('MLFLOW_TRACKING_URI', 'sqlite:///" in said and "-rebuild/.attune/" in said
    assert "ours.db" not in said and "REGISTRY" not in said


def test_a_stage_that_fails_is_named_with_its_last_lines(checkout: Checkout) -> None:
    checkout.commit(**{"judge.py": "print('no idea')\nraise SystemExit(4)\n"})
    found = reviewed(checkout)
    assert (found.rebuild.verdict, found.rebuild.first) == ("failed", "judge")
    assert "no idea" in found.rebuild.last_lines
    assert not found.rebuild.holds


def test_a_head_that_nobody_ran_is_unrecorded_and_shown_as_the_rebuild_made_it(checkout: Checkout) -> None:
    checkout.commit(**{"params.yaml": "seed: 333\n"})
    cached = sorted((checkout.root / ".dvc" / "cache").rglob("*"))
    found = reviewed(checkout)
    assert sorted((checkout.root / ".dvc" / "cache").rglob("*")) == cached, "a rebuild has a cache of its own"
    assert (found.rebuild.verdict, found.rebuild.first, found.head.results) == ("unrecorded", "make", "rebuilt")
    assert "seed" in found.head.stale["make"] and "judge" not in found.head.stale
    assert found.head.lock["make"]["outs"] != found.base.lock["make"]["outs"]  # type: ignore[union-attr]


def test_without_a_rebuild_what_has_to_run_is_run(checkout: Checkout) -> None:
    checkout.commit(**{"params.yaml": "seed: 4444\n"})
    found = reviewed(checkout, rebuild=False)
    assert (found.rebuild.verdict, found.head.results) == ("unrecorded", "run")
    assert found.head.lock["make"]["outs"][0]["size"] == len("a\nseed: 4444\n")


# ── which results count ───────────────────────────────────────────────────────────────────────────────────────────────
def test_data_that_moved_on_in_the_checkout_are_said_to_have(checkout: Checkout) -> None:
    checkout.write("data/inbox/rows.csv", "a\nb\n")
    for rebuild, verdict in ((False, "left out"), (True, "unrecorded")):
        found = reviewed(checkout, rebuild=rebuild)
        assert (found.rebuild.verdict, found.rebuild.seconds) == (verdict, {}), "nothing runs on other data"
        assert found.base and (found.base.results, found.head.results) == ("recorded", "recorded")
        assert any("data/inbox/" in note for note in found.notes)


def test_data_that_dvc_keeps_come_from_its_cache(checkout: Checkout) -> None:
    dvc(checkout.root, "add", "-q", "data/inbox/rows.csv")
    run(checkout)
    checkout.write("data/inbox/rows.csv", "being edited\n")
    assert reviewed(checkout).rebuild.verdict == "identical"


def test_outs_that_are_nowhere_are_made_again_on_both_sides(checkout: Checkout) -> None:
    for folder in ("cache", "tmp"):
        subprocess.run(["rm", "-rf", str(checkout.root / ".dvc" / folder)], check=True)
    found = reviewed(checkout)
    assert found.base and (found.base.results, found.head.results) == ("run", "rebuilt")
    assert found.rebuild.verdict == "identical", "the lock is enough to hold the rebuild against"
    assert any("data/made.txt" in note for note in found.notes)


def test_a_base_that_cannot_be_made_again_costs_the_comparison_alone(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "main")
    run(checkout)
    checkout.commit(**{"make.py": "raise SystemExit('gone')\n"})
    checkout.git("checkout", "-q", "-b", "mended")
    checkout.write("make.py", FILES["make.py"])
    checkout.write("params.yaml", "seed: 7\n")
    run(checkout)
    subprocess.run(["rm", "-rf", str(checkout.root / ".dvc" / "cache")], check=True)
    found = reviewed(checkout)
    assert found.base is None and "make" in found.failure
    assert found.rebuild.verdict == "identical"


def test_before_the_first_run_there_is_no_base_and_no_error(tmp_path: Path) -> None:
    mine = make_checkout(tmp_path / "home")
    found = reviewed(mine)
    assert (found.base, found.failure, found.changes) == (None, "", None)
    assert (found.rebuild.verdict, found.head.results) == ("unrecorded", "rebuilt")
    run(mine)
    found = reviewed(mine)
    assert found.base is None and found.rebuild.verdict == "identical"


# ── against what ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_base_is_where_the_histories_parted_and_what_came_since_is_counted(checkout: Checkout) -> None:
    parted = checkout.git("rev-parse", "main")
    checkout.git("checkout", "-q", "main")
    for number in range(3):
        checkout.commit(**{"note.txt": str(number)})
    checkout.git("checkout", "-q", "feature")
    commits = find_commits(checkout.root, "main", "HEAD")
    assert (commits.base, commits.behind) == (parted, 3)
    assert commits.asked == checkout.git("rev-parse", "main")


def test_the_head_itself_is_held_against_the_commit_before_it(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "main")
    commits = find_commits(checkout.root, None, "HEAD")
    assert (commits.base_name, commits.base) == ("HEAD~1", checkout.git("rev-parse", "HEAD~1"))
    assert any("main is the head itself" in note for note in commits.notes)
    asked = find_commits(checkout.root, "main", "HEAD")
    assert asked.base == asked.head, "unless that is what was asked for"


def test_a_branch_of_a_remote_is_as_that_has_it_now_or_as_it_was_fetched(checkout: Checkout, tmp_path: Path) -> None:
    other = Checkout(tmp_path / "other")
    checkout.git("clone", "-q", str(checkout.root), str(other.root))
    checkout.git("checkout", "-q", "main")
    newer = checkout.commit(**{"note.txt": "newer"})
    assert find_commits(other.root, "origin/main", "HEAD").asked == newer
    other.git("remote", "set-url", "origin", str(tmp_path / "nowhere"))
    offline = find_commits(other.root, None, "HEAD")
    assert (offline.base_name, offline.asked) == ("origin/main", newer)
    assert any("as it was fetched last" in note for note in offline.notes)
    with pytest.raises(AttuneError, match="no commit"):
        find_commits(other.root, "nothing", "HEAD")


def test_histories_that_share_nothing_are_told_and_compared_all_the_same(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "--orphan", "island")
    run(checkout)
    found = reviewed(checkout, "main", rebuild=False)
    assert found.base and found.base.commit == checkout.git("rev-parse", "main")
    assert any("share no history" in note for note in found.notes)


def test_a_lock_that_both_sides_changed_is_a_conflict_and_a_clean_merge_is_none(checkout: Checkout) -> None:
    checkout.commit(**{"only here.txt": "mine"})
    assert reviewed(checkout, rebuild=False).conflicts == ()
    checkout.git("checkout", "-q", "main")
    checkout.write("params.yaml", "seed: 555\n")
    run(checkout)
    checkout.git("checkout", "-q", "feature")
    found = reviewed(checkout, rebuild=False).conflicts
    assert {*found} >= {"dvc.lock", "params.yaml"} and "only here.txt" not in found


def test_marks_of_a_merge_in_the_lock_count_as_no_lock(checkout: Checkout) -> None:
    lock = (checkout.root / "dvc.lock").read_text()
    checkout.commit(**{"dvc.lock": f"<<<<<<< HEAD\n{lock}=======\n{lock}>>>>>>> main\n"})
    found = reviewed(checkout)
    assert "dvc.lock" in found.conflicts
    assert (found.rebuild.verdict, found.head.results) == ("unrecorded", "rebuilt")


# ── worktrees ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_persons_checkout_is_the_same_byte_for_byte_after_a_review(checkout: Checkout) -> None:
    checkout.write("mine.txt", "staged")
    checkout.git("add", "mine.txt")
    checkout.write("judge.py", "half: edited\n")
    checkout.write("half.txt", "untracked")
    checkout.git("stash", "push", "-q", "--", "judge.py")
    checkout.write("make.py", "half: edited\n")
    os.utime(checkout.root / "constraints.txt", (1, 1))  # Git would write its index anew
    (checkout.root / ".attune" / "downloads").mkdir(parents=True)
    before = checkout.seen()
    found = reviewed(checkout)
    assert found.rebuild.verdict == "identical"
    assert set(found.uncommitted) == {"mine.txt", "half.txt", "make.py"}
    assert checkout.seen() == before
    assert reviewed(checkout, "HEAD", "main", rebuild=False).uncommitted == ()


def test_the_command_writes_both_pages_and_its_status_says_what_it_found(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout.root)
    out = ("--output", str(tmp_path / "deep" / "out"))
    assert main(["--no-rebuild", *out]) == 0
    assert sorted(path.name for path in (tmp_path / "deep" / "out").iterdir()) == ["review.html", "review.md"]
    assert "seed" in (tmp_path / "deep" / "out" / "review.html").read_text()
    checkout.commit(**{"params.yaml": "seed: 1\n"})
    assert main(["--base", "main", "--head", "feature", "--no-rebuild", *out]) == NOT_REPRODUCED
    assert str(tmp_path / "deep" / "out" / "review.md") in capsys.readouterr().out
    assert main(["--base", "nothing", *out]) == 1
    assert "no commit" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(["--no-rebuild"]) == 1
    assert "run this in the project's folder" in capsys.readouterr().err


def test_what_a_killed_review_left_is_gone_after_the_next_and_what_one_keeps_is_not(checkout: Checkout) -> None:
    checkout.write("judge.py", "import pathlib, time\npathlib.Path('../../../at work').touch()\ntime.sleep(60)\n")
    checkout.commit()
    own = {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "flows.review", "--output", str(checkout.root.parent / "out")]
    killed = subprocess.Popen(command, cwd=checkout.root, env=os.environ | own, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (checkout.root / "at work").exists():
        assert killed.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    during = left(checkout)
    assert [name.rpartition("-")[2] for name in during] == ["base", "head", "rebuild"]
    assert all(name.startswith(NAMED) for name in during)
    review(checkout.root, Request(None, "main", rebuild=False), lambda _: None)
    assert left(checkout) == during, "a review at work is left alone by another"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    reviewed(checkout, None, "main", rebuild=False, keep=True)
    names = left(checkout)
    assert [name.rpartition("-")[2] for name in names] == ["head"] and names[0].startswith(KEPT)
    review(checkout.root, Request(None, "main", rebuild=False), lambda _: None)
    assert left(checkout) == names


def test_a_review_that_is_interrupted_takes_its_worktrees_along(checkout: Checkout) -> None:
    def stop(line: str) -> None:
        if line.startswith("rebuild"):
            assert len(left(checkout)) == 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        review(checkout.root, Request(logs=checkout.root.parent / "logs"), stop)
    assert left(checkout) == []


# ── the rebuild ───────────────────────────────────────────────────────────────────────────────────────────────────────
TRAINING = """import json, os
from pathlib import Path
import polars
digest, machine = (os.environ[name] for name in ("DIGEST", "MACHINE"))
for folder in ("models/finetuned", "data", "reports", ".attune/trainings"):
    Path(folder).mkdir(parents=True, exist_ok=True)
Path("models/finetuned/weights").write_text(digest)
polars.DataFrame({"id": ["a"], "prediction": ["good"]}).write_parquet("data/predictions.parquet")
scores = {f"{name}{end}": 0.8 for name in ("accuracy", "macro_f1") for end in ("", "_low", "_high")}
Path("reports/metrics.json").write_text(json.dumps({**scores, "model": {"digest": digest}}))
tags = {"attune.processor": machine, "attune.threads": os.environ["OMP_NUM_THREADS"]}
Path(f".attune/trainings/{digest}.json").write_text(json.dumps(tags))
"""
TRAINS = f"""stages:
  finetune:
    cmd: {sys.executable} train.py
    deps: [train.py]
    outs: [models/finetuned, data/predictions.parquet]
    metrics: [reports/metrics.json: {{cache: false}}]
"""


def test_what_a_model_was_trained_on_is_looked_up_and_its_threads_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(digest: str, machine: str, threads: str) -> None:
        for name, value in {"DIGEST": 64 * digest, "MACHINE": machine, "OMP_NUM_THREADS": threads}.items():
            monkeypatch.setenv(name, value)

    mine = make_checkout(tmp_path / "home")
    mine.write("train.py", TRAINING)
    mine.write("dvc.yaml", TRAINS)
    of("a", "A", threads="3")
    run(mine)
    of("b", "B", threads="1")
    found = reviewed(mine)
    assert (found.rebuild.verdict, found.rebuild.environment_known) == ("equal", True)
    assert found.rebuild.environment == (EnvironmentChange("processor", "A", "B"),)
    assert "rebuilt with 3 threads, as recorded; this machine would take 1" in found.notes
    of("b", "A", threads="3")
    found = reviewed(mine)
    assert (found.rebuild.verdict, found.rebuild.first, found.rebuild.environment) == ("different", "finetune", ())
    shutil.rmtree(mine.root / ".attune" / "trainings")
    found = reviewed(mine)
    assert (found.rebuild.verdict, found.rebuild.environment_known) == ("equal", False)


def test_a_rebuild_takes_as_many_threads_as_the_record_unless_they_are_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    def asked(recorded: str, pinned: int | None = None) -> dict[str, str]:
        head = Revision("HEAD", "c", "s", tmp_path, {}, {}, {"finetune": {"torch_num_threads": pinned}})
        return _threads(head, recorded)[0]

    assert asked("1") == {"OMP_NUM_THREADS": "1"}
    assert asked("4096") == {"OMP_NUM_THREADS": "4096", "OMP_WAIT_POLICY": "passive"}
    assert asked("2") == asked("1", pinned=4) == asked("1, then 2") == asked("True") == asked("") == {}


def test_where_a_model_was_trained_is_noted_in_the_checkout_or_in_its_run_in_mlflow(tmp_path: Path) -> None:
    def known(model: Any, uri: str | None = None) -> dict[str, str]:
        (tmp_path / "reports").mkdir(exist_ok=True)
        (tmp_path / "reports" / "metrics.json").write_text(json.dumps({"model": {"digest": model}}))
        return recorded_environment(Revision("HEAD", "c", "s", tmp_path, {}, {}, {}), uri, tmp_path)

    noted, published, store = "a" * 64, "b" * 64, f"sqlite:///{tmp_path / 'mlflow.db'}"
    machines = [tags({"processor": name, "packages": {"torch": "2.13.0"}}) for name in "ABC"]
    (tmp_path / TRAININGS).mkdir(parents=True)
    (tmp_path / TRAININGS / f"{noted}.json").write_text(json.dumps(machines[0]))
    client = MlflowClient(store)
    for model, machine in zip((published, noted), machines[1:], strict=True):
        client.create_run("0", tags={MODEL_TAG: model, **machine})
    assert known(noted, store) == {"processor": "A", "torch": "2.13.0"}
    assert known(published, store) == {"processor": "B", "torch": "2.13.0"}
    assert known(published) == known("c" * 64, store) == known("a digest that is none", store) == {}


def test_an_out_beyond_the_project_is_refused_before_anything_is_removed(checkout: Checkout, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    checkout.commit(**{"dvc.yaml": FILES["dvc.yaml"].replace("data/made.txt", f"{precious}")})
    with pytest.raises(AttuneError):
        reviewed(checkout)
    assert precious.read_text() == "kept"


# ── what a commit may look like ───────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", [".dvc/config.local", ".attune", "data/inbox", "reports"])
def test_a_link_where_a_review_writes_is_refused_and_what_it_leads_to_stays(
    checkout: Checkout, tmp_path: Path, name: str
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("theirs")
    blob = checkout.git("hash-object", "-w", str(checkout.write("link", str(theirs))))
    checkout.git("rm", "-r", "-q", "--cached", "--ignore-unmatch", name)
    checkout.git("update-index", "--add", "--cacheinfo", f"120000,{blob},{name}")
    checkout.git("commit", "-q", "-m", "a link")
    with pytest.raises(AttuneError, match="as a link"):
        reviewed(checkout, rebuild=False)
    assert [path.name for path in theirs.iterdir()] == ["file"] and (theirs / "file").read_text() == "theirs"


@pytest.mark.parametrize(
    "files",
    [
        {"sub/dvc.yaml": "stages:\n  judge: {cmd: 'true', outs: [x]}\n  make: {cmd: 'true', outs: [y]}\n"},
        {"dvc.yaml": FILES["dvc.yaml"].replace("  judge:\n", "  judge:\n    frozen: true\n")},
    ],
    ids=["names of another graph", "a frozen stage"],
)
def test_what_nobody_ran_is_unrecorded_whatever_hides_it(checkout: Checkout, files: dict[str, str]) -> None:
    checkout.commit(**{"judge.py": FILES["judge.py"] + "print('other code')\n", **files})
    assert "judge" in stale_stages(checkout.root, read_graph(checkout.root), lock_at(checkout.root))


@pytest.mark.parametrize("output", ["/proc/x", "file", "taken"])
def test_where_nothing_can_be_written_nothing_is_begun(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    checkout.write("file", "")
    checkout.write("taken/review.md/x", "")
    monkeypatch.chdir(checkout.root)
    assert main(["--output", output]) == 1
    told = capsys.readouterr()
    assert "name another --output" in told.err and told.out == ""
