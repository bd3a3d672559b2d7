"""What a scheduled run keeps: a memory for the next run, a branch only where asked for, and nobody's branch moved."""

from pathlib import Path
from uuid import uuid4

import pytest
from dvc.config import Config
from prefect.logging import disable_run_logger

from flows.execution.stage_process import Outcome
from flows.reporting.artifact import places
from flows.reporting.reports import Reports
from flows.repository.results import keep, push_results, reference
from flows.repository.worktree_files import push_all
from flows.repository.worktrees import open_worktree
from flows.retrain import keep_results
from stages.common.errors import AttuneError
from tests.projects import Project

NIGHTLY, BRANCH = "refs/attune/nightly", "refs/heads/attune/nightly"


def opened(home: Project, commit: str = "HEAD", *, fetch: bool = False) -> Path:
    return open_worktree(home.root, str(uuid4()), "nightly", commit, lambda _: None, fetch=fetch)


def ran(home: Project, commit: str = "HEAD", *, branch: bool = False) -> tuple[list[str], str]:
    """Return which stages a run ran, and the commit of its results."""
    folder = opened(home, commit)
    return Project(folder).reproduced(), keep(folder, "nightly", "nightly: results\n", branch=branch)


def test_the_second_run_finds_cached_what_the_first_has_made(checkout: Project) -> None:
    first, commit = ran(checkout)
    assert first == ["make", "judge"]
    assert checkout.git("rev-parse", NIGHTLY) == commit
    assert ran(checkout) == ([], commit), "and makes no commit of the same results"
    checkout.commit(**{"notes.md": "something else\n"})
    again, later = ran(checkout)
    assert again == []
    assert checkout.git("rev-parse", f"{later}^") == checkout.git("rev-parse", "main")
    assert checkout.git("rev-parse", f"{NIGHTLY}@{{1}}") == commit, "earlier results are in its reflog"
    checkout.file("data/inbox/more.csv", "b\n")
    assert [ran(checkout)[0], ran(checkout)[0]] == [["make", "judge"], []], "new data run what they must, and once"
    (checkout.root / "data/inbox/more.csv").unlink()
    checkout.reproduced()
    checkout.commit()
    assert ran(checkout) == ([], ""), "where the commit has another lock, that one counts; the same results: no commit"


def test_results_hold_lock_reports_and_changed_params_and_the_commit_names_scores_and_stages(
    checkout: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened(checkout)
    (folder / "params.yaml").write_text("seed: 5\n")
    (folder / "make.py").write_text((folder / "make.py").read_text() + "# touched\n")
    Project(folder).reproduced()
    monkeypatch.chdir(folder)
    with disable_run_logger():
        message = keep_results(folder, "nightly", {"make": Outcome("success"), "judge": Outcome("cached")}, branch=True)
    assert message == f"results are in {NIGHTLY}, and in the branch of this name"
    names = checkout.git("diff", "--name-only", "HEAD", NIGHTLY).split()
    assert names == ["dvc.lock", "params.yaml", "reports/scores.json"]
    subject, _, body = checkout.git("log", "-1", "--format=%s by %an%n%B", NIGHTLY).partition("\n")
    assert subject == "nightly: make, accuracy 0.1000 by Attune"
    assert "judge: cached" in body and "Attune-Run: " in body


def test_a_branch_points_at_the_results_only_where_asked_for_and_not_while_it_is_checked_out(checkout: Project) -> None:
    ran(checkout)
    assert checkout.git("branch", "--format=%(refname:short)") == "main"
    for seed in (1, 2):
        checkout.commit(**{"params.yaml": f"seed: {seed}\n"})
        _, commit = ran(checkout, branch=True)
        assert checkout.git("rev-parse", BRANCH) == commit == checkout.git("rev-parse", NIGHTLY)
    checkout.git("switch", "-q", "attune/nightly", "--")
    checkout.file("data/inbox/rows.csv", "b\n")
    with pytest.raises(AttuneError, match="git branch failed"):
        ran(checkout, "main", branch=True)
    assert checkout.git("rev-parse", BRANCH) == commit != checkout.git("rev-parse", NIGHTLY), "kept all the same"


def test_a_branch_on_origin_moves_only_over_what_was_pushed_from_here(checkout: Project, tmp_path: Path) -> None:
    checkout.git("clone", "-q", "--bare", str(checkout.root), str(tmp_path / "origin"))
    checkout.git("remote", "add", "origin", str(tmp_path / "origin"))
    origin = Project(tmp_path / "origin")
    for content in ("b", "c"):
        checkout.file("data/inbox/rows.csv", content)
        _, pushed = ran(checkout, branch=True)
        push_results(checkout.root, "nightly", branch=True)
        assert origin.git("rev-parse", BRANCH) == origin.git("rev-parse", NIGHTLY) == pushed
    theirs = origin.git("commit-tree", f"{pushed}^{{tree}}", "-p", pushed, "-m", "a person's")
    origin.git("update-ref", BRANCH, theirs)
    checkout.file("data/inbox/rows.csv", "d")
    ran(checkout, branch=True)
    for fetched in (False, True):
        if fetched:
            checkout.git("fetch", "-q", "origin")
        with pytest.raises(AttuneError, match="git push failed"):
            push_results(checkout.root, "nightly", branch=True)
        assert origin.git("rev-parse", BRANCH) == theirs


def test_changes_are_reported_of_a_scheduled_run_only_where_it_did_not_make_them(
    checkout: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = f"commit: `{checkout.git('rev-parse', '--short=12', 'HEAD')}`"
    folder = opened(checkout)
    for path in (folder, checkout.root):
        (path / "params.yaml").write_text("seed: 5\n")
    monkeypatch.chdir(folder)
    report = f"report: `reports/evaluation.html` of `{NIGHTLY}-set` after a run that succeeded, "
    report += f"else in `.attune/worktrees/{folder.name}`"
    assert places(Reports({"rows": 1}), other_params=True) == [report, commit]
    (folder / "make.py").write_text("")
    for path in (folder, checkout.root):  # in a person's checkout, params.yaml counts as well
        monkeypatch.chdir(path)
        assert places(Reports(), other_params=False) == [f"{commit} with changes"]


def test_names_of_deployments_make_names_of_references() -> None:
    for name, end in {"New data!": "New-data", "../../heads/main": "heads-main", "ä": "retrain"}.items():
        assert reference(name) == f"refs/attune/{end}"


def test_data_go_to_the_dvc_remote_if_there_is_one(checkout: Project, tmp_path: Path) -> None:
    checkout.dvc("add", "-q", "data/inbox/rows.csv")
    checkout.commit()
    folder = opened(checkout)
    Project(folder).reproduced()
    assert push_all(folder) == ""
    problems = []
    for name, url in {"store": str(tmp_path / "store"), "away": "http://me:hunter2hunter2@127.0.0.1:9/store"}.items():
        with Config(str(folder / ".dvc")).edit("local") as local:
            local |= {"core": {"remote": name}, "remote": {name: {"url": url}}}
        problems.append(push_all(folder))
    pushed = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert {path.read_text() for path in pushed} == {"a\n", "a\nseed: 1\n"}, "own data that DVC keeps, and outs"
    assert problems[0] == ""
    assert problems[1].startswith("nothing or not all was pushed to the DVC remote away")
    assert "hunter2" not in problems[1]


def test_a_clone_goes_on_from_what_another_has_pushed(checkout: Project, tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    checkout.commit(**{".dvc/config": f"[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n"})
    checkout.git("clone", "-q", "--bare", str(checkout.root), str(tmp_path / "origin"))
    for stages in (["make", "judge"], []):
        clone = Project(tmp_path / f"clone{len(stages)}")
        checkout.git("clone", "-q", str(tmp_path / "origin"), str(clone.root))
        folder = opened(clone, fetch=True)
        assert Project(folder).reproduced() == stages
        if keep(folder, "nightly", "results\n"):
            assert push_all(folder) == ""
            push_results(folder, "nightly")
    assert Project(tmp_path / "origin").git("rev-parse", "main") == checkout.git("rev-parse", "main")


def test_what_was_kept_is_spared_by_garbage_collection_and_taken_over_as_the_documentation_says(
    checkout: Project,
) -> None:
    ran(checkout)
    checkout.dvc("gc", "--force", "--quiet", "--workspace", "--rev", NIGHTLY)
    checkout.git("checkout", NIGHTLY, "--", "dvc.lock", "reports")
    checkout.dvc("checkout")
    assert (checkout.root / "data" / "made.txt").read_text() == "a\nseed: 1\n"
    assert checkout.reproduced() == []
