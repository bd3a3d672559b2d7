"""A review in worktrees of its own: which results it takes, what it makes again, and that nobody's checkout changes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.repository.worktrees import WORKTREES, lock_of
from flows.review import NOT_REPRODUCED, main
from flows.reviewing.findings import Review
from flows.reviewing.review import find_commits, review
from flows.reviewing.revision import PREFIX
from stages.common.errors import AttuneError
from stages.common.locks import locked
from tests.projects import TOY, Project, toy_project

Output, Patch = pytest.CaptureFixture[str], pytest.MonkeyPatch


@pytest.fixture
def checkout(checkout: Project, monkeypatch: Patch) -> Project:
    """It is on a branch, its pipeline has run and is committed, one commit after main's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(checkout)
    checkout.git("checkout", "-q", "-b", "feature")
    checkout.file("params.yaml", "seed: 22\n")
    run(checkout)
    return checkout


def run(mine: Project) -> str:
    mine.reproduced()
    return mine.commit()


def reviewed(mine: Project, rebuild: bool = True) -> Review:
    result = review(mine.root, None, "HEAD", mine.root.parent / "logs", lambda _: None, from_nothing=rebuild)
    assert left(mine) == []
    return result


def left(mine: Project) -> list[str]:
    """Return what reviews have left in the checkout."""
    assert mine.git("worktree", "list").count("\n") == sum(path.is_dir() for path in (mine.root / WORKTREES).iterdir())
    return sorted(path.name for path in (mine.root / WORKTREES).iterdir() if path.suffix != ".lock" and path.is_dir())


# ── what is reproduced ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_failing_stage_is_named_and_nothing_leads_out(checkout: Project, tmp_path: Path, monkeypatch: Patch) -> None:
    for name in ("TRACKING", "REGISTRY"):
        monkeypatch.setenv(f"MLFLOW_{name}_URI", f"sqlite:///{tmp_path}/ours.db")
    shows = "print(Path('reports/scores.json').exists(), {k for k in os.environ.items() if 'MLFLOW' in k[0]})"
    checkout.commit(**{"judge.py": f"import os\nfrom pathlib import Path\n{shows}\nraise SystemExit(4)\n"})
    result = reviewed(checkout)
    assert (result.rebuild.verdict, result.rebuild.first, result.rebuild.holds) == ("failed", "judge", False)
    output = "".join(result.rebuild.last_lines)
    assert "False {('MLFLOW_TRACKING_URI', 'sqlite:///" in output and "-rebuild/.attune/" in output
    assert "ours.db" not in output and "REGISTRY" not in output


def test_a_head_that_nobody_ran_is_unrecorded_and_shown_as_it_was_made_here(checkout: Project) -> None:
    checkout.commit(**{"params.yaml": "seed: 333\n"})
    cached = sorted((checkout.root / ".dvc" / "cache").rglob("*"))
    result = reviewed(checkout)
    assert sorted((checkout.root / ".dvc" / "cache").rglob("*")) == cached, "a rebuild has a cache of its own"
    assert (result.rebuild.verdict, result.rebuild.first, result.head.results) == ("unrecorded", "make", "rebuilt")
    assert "seed" in result.head.stale["make"] and "judge" not in result.head.stale
    assert result.head.lock["make"]["outs"] != result.base.lock["make"]["outs"]  # type: ignore[union-attr]


# ── which results count ───────────────────────────────────────────────────────────────────────────────────────────────
def test_data_that_moved_on_in_the_checkout_are_said_to_have(checkout: Project) -> None:
    checkout.file("data/inbox/rows.csv", "a\nb\n")
    result = reviewed(checkout)
    assert (result.rebuild.verdict, result.rebuild.seconds) == ("unrecorded", {}), "nothing runs on other data"
    assert result.base and (result.base.results, result.head.results) == ("recorded", "recorded")
    assert any("data/inbox/" in note for note in result.notes)


def test_outs_that_are_nowhere_are_made_again_on_both_sides(checkout: Project) -> None:
    for folder in ("cache", "tmp"):
        subprocess.run(["rm", "-rf", str(checkout.root / ".dvc" / folder)], check=True)
    result = reviewed(checkout)
    assert result.base and (result.base.results, result.head.results) == ("run", "rebuilt")
    assert result.rebuild.verdict == "identical", "the lock is enough to hold the rebuild against"
    assert any("data/made.txt" in note for note in result.notes)


def test_a_base_that_cannot_be_made_again_costs_the_comparison_alone(checkout: Project) -> None:
    checkout.git("checkout", "-q", "main")
    run(checkout)
    checkout.commit(**{"make.py": "raise SystemExit('gone')\n"})
    checkout.git("checkout", "-q", "-b", "mended")
    checkout.file("make.py", TOY["make.py"])
    checkout.file("params.yaml", "seed: 7\n")
    run(checkout)
    subprocess.run(["rm", "-rf", str(checkout.root / ".dvc" / "cache")], check=True)
    result = reviewed(checkout)
    assert result.base is None and "make" in result.failure
    assert result.rebuild.verdict == "identical"


@pytest.mark.parametrize("lock", [None, "<<<<<<< HEAD\nschema: '2.0'\n=======\n>>>>>>> main\n"])
def test_before_the_first_run_or_amid_a_merge_there_is_no_record_and_no_error(lock: str | None, tmp_path: Path) -> None:
    mine = toy_project(tmp_path / "home")
    if lock:
        mine.commit(**{"dvc.lock": lock})
    result = reviewed(mine)
    assert (result.base, result.failure, result.changes) == (None, "", None)
    assert (result.rebuild.verdict, result.head.results) == ("unrecorded", "rebuilt")


# ── against what ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_base_is_where_the_histories_parted_or_the_commit_before_the_head_itself(checkout: Project) -> None:
    parted = checkout.git("rev-parse", "main")
    checkout.git("checkout", "-q", "main")
    checkout.commit(**{"note.txt": "later"})
    result = find_commits(checkout.root, "main", "feature")
    assert (result.base, result.behind) == (parted, 1)
    default = find_commits(checkout.root, None, "HEAD")
    assert (default.base_name, default.base) == ("HEAD~1", checkout.git("rev-parse", "HEAD~1"))
    assert any("main is the head itself" in note for note in default.notes)
    checkout.git("checkout", "-q", "--orphan", "island")
    checkout.commit()
    island = find_commits(checkout.root, "main", "HEAD")
    assert island.base == checkout.git("rev-parse", "main") and any("share no history" in note for note in island.notes)


def test_a_branch_of_a_remote_is_as_that_has_it_now_or_as_it_was_fetched(checkout: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other")
    checkout.git("clone", "-q", str(checkout.root), str(other.root))
    checkout.git("checkout", "-q", "main")
    checkout.commit(**{"note.txt": "newer"})
    assert find_commits(other.root, "origin/main", "HEAD").behind == 1
    other.git("remote", "set-url", "origin", str(tmp_path / "nowhere"))
    offline = find_commits(other.root, None, "HEAD")
    assert (offline.base_name, offline.behind) == ("origin/main", 1)
    assert any("as it was fetched last" in note for note in offline.notes)
    other.git("clone", "-q", "--depth", "1", f"file://{checkout.root}", str(tmp_path / "shallow"))
    assert any("--unshallow" in note for note in find_commits(tmp_path / "shallow", None, "HEAD").notes)
    with pytest.raises(AttuneError, match=r"no commit.*\n.*--unshallow"):
        find_commits(tmp_path / "shallow", "HEAD~1", "HEAD")
    with pytest.raises(AttuneError, match="no commit"):
        find_commits(other.root, "nothing", "HEAD")


# ── worktrees ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_recorded_results_come_out_again_and_a_persons_checkout_is_the_same_byte_for_byte(checkout: Project) -> None:
    checkout.file("mine.txt", "staged")
    checkout.git("add", "mine.txt")
    checkout.file("half.txt", "untracked")
    checkout.file("make.py", "half: edited\n")
    os.utime(checkout.root / "constraints.txt", (1, 1))  # Git would write its index anew
    (checkout.root / ".attune" / "downloads").mkdir(parents=True)
    before = checkout.seen()
    result = reviewed(checkout)
    assert checkout.seen() == before
    assert set(result.uncommitted) == {"mine.txt", "half.txt", "make.py"}
    assert (result.rebuild.verdict, result.asked_base, result.behind) == ("identical", "main", 0)
    assert list(result.rebuild.seconds) == ["make", "judge"] and result.rebuild.holds
    assert result.base and (result.base.results, result.head.results) == ("recorded", "recorded")
    assert result.base.commit == checkout.git("rev-parse", "main")
    assert result.changes and [change.key for change in result.changes.params] == ["seed"]
    assert "Running stage 'make'" in (checkout.root.parent / "logs" / "rebuild" / "make.log").read_text()


def test_the_command_writes_both_pages(checkout: Project, tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    monkeypatch.chdir(checkout.root)
    out = tmp_path / "deep" / "out"
    checkout.commit(**{"params.yaml": "seed: 1\n"})
    assert main(["--base", "main", "--head", "feature", "--no-rebuild", "--output", str(out)]) == NOT_REPRODUCED
    assert sorted(path.name for path in out.iterdir()) == ["review", "review.html", "review.md"]
    page = (out / "review.html").read_text()
    assert "seed" in page and "the results below are made by this review" in page
    assert str(out / "review.md") in capsys.readouterr().out
    assert main(["--base", "nothing", "--output", str(out)]) == 1
    assert "no commit" in capsys.readouterr().err
    assert main(["--output", "/proc/x"]) == 1
    printed = capsys.readouterr()
    assert "name another --output" in printed.err and printed.out == "", "before a rebuild that takes hours"


def test_worktrees_of_a_killed_review_go_with_the_next_unless_somebody_is_at_work_there(checkout: Project) -> None:
    dead, busy = (checkout.root / WORKTREES / f"{PREFIX}{name}-head" for name in ("dead", "busy"))
    for folder in (dead, busy):
        checkout.git("worktree", "add", "-q", "--detach", str(folder))

    def stop(line: str) -> None:
        if line.startswith("rebuild"):
            assert busy.exists() and not dead.exists()
            assert len(left(checkout)) == 4
            raise KeyboardInterrupt

    with locked(lock_of(busy)), pytest.raises(KeyboardInterrupt):
        review(checkout.root, None, "HEAD", checkout.root.parent / "logs", stop)
    assert left(checkout) == [busy.name], "one that is interrupted takes its own along"


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
Path("reports/scores.json").write_text(json.dumps({**scores, "model": {"digest": digest}}))
tags = {"attune.processor": machine, "attune.threads": os.environ["OMP_NUM_THREADS"]}
Path(f".attune/trainings/{digest}.json").write_text(json.dumps(tags))
"""
TRAINS = f"""stages:
  finetune:
    cmd: {sys.executable} train.py
    deps: [train.py]
    outs: [models/finetuned, data/predictions.parquet]
    metrics: [reports/scores.json: {{cache: false}}]
"""


def test_a_model_is_rebuilt_with_the_threads_it_was_trained_with(tmp_path: Path, monkeypatch: Patch) -> None:
    def of(digest: str, machine: str, threads: str) -> None:
        for name, value in {"DIGEST": 64 * digest, "MACHINE": machine, "OMP_NUM_THREADS": threads}.items():
            monkeypatch.setenv(name, value)

    mine = toy_project(tmp_path / "home")
    mine.file("train.py", TRAINING)
    mine.file("dvc.yaml", TRAINS)
    of("a", "A", threads="3")
    run(mine)
    of("b", "B", threads="1")
    result = reviewed(mine)
    assert result.rebuild.verdict == "equal" and "not known" not in result.rebuild.agreement
    assert result.rebuild.environment == (("processor", "A", "B"),), "with the threads that were noted"


def test_an_out_beyond_the_project_is_refused_before_anything_is_removed(checkout: Project, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    checkout.commit(**{"dvc.yaml": TOY["dvc.yaml"].replace("data/made.txt", f"{precious}")})
    with pytest.raises(AttuneError):
        reviewed(checkout)
    assert precious.read_text() == "kept"


def test_a_link_where_a_review_writes_is_refused_and_what_it_leads_to_stays(checkout: Project, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    blob = checkout.git("hash-object", "-w", str(checkout.file("link", str(theirs))))
    checkout.git("rm", "-r", "-q", "--cached", "reports")
    checkout.git("update-index", "--add", "--cacheinfo", f"120000,{blob},reports")
    checkout.git("commit", "-q", "-m", "a link")
    with pytest.raises(AttuneError, match="as a link"):
        reviewed(checkout, rebuild=False)
    assert not any(theirs.iterdir())
