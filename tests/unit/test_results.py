"""What a scheduled run keeps: a memory for the next run, a branch only where asked for, and nobody's branch moved."""

from pathlib import Path
from uuid import uuid4

import pytest

from flows.running.outcome import Outcome
from flows.scheduled.place import Place, noted
from flows.scheduled.results import branch_of, keep, push_commit, push_data, recall, reference
from flows.worktree import open_worktree, take_clone
from stages.common.errors import AttuneError
from tests.unit.small_checkout import Checkout, dvc, make_checkout, repro

NIGHTLY = "refs/attune/nightly"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    mine = make_checkout(tmp_path / "home")
    mine.write("data/inbox/rows.csv", "a\n")
    return mine


def opened(mine: Checkout, commit: str = "HEAD") -> Path:
    return open_worktree(mine.root, str(uuid4()), "nightly", commit, lambda _: None)


def ran(mine: Checkout, branch: str = "", commit: str = "HEAD") -> tuple[list[str], str]:
    """Return which stages a run ran, and the commit of its results."""
    folder = opened(mine, commit)
    return repro(folder), keep(folder, "nightly", "nightly: results\n", branch)


def test_the_second_run_finds_cached_what_the_first_has_made(checkout: Checkout) -> None:
    first, commit = ran(checkout)
    assert first == ["make", "judge"]
    assert checkout.git("rev-parse", NIGHTLY) == commit
    assert ran(checkout) == ([], commit), "and makes no commit of the same results"
    checkout.commit(**{"notes.md": "something else\n"})
    again, later = ran(checkout)
    assert again == []
    assert checkout.git("rev-parse", f"{later}^") == checkout.git("rev-parse", "main")
    assert checkout.git("rev-parse", f"{NIGHTLY}@{{1}}") == commit, "earlier results are in its reflog"


def test_new_data_run_what_they_must_and_only_once(checkout: Checkout) -> None:
    ran(checkout)
    checkout.write("data/inbox/more.csv", "b\n")
    assert ran(checkout)[0] == ["make", "judge"]
    assert ran(checkout)[0] == []


def test_results_of_another_lock_are_no_memory_but_older_ones_are_found(checkout: Checkout) -> None:
    old = checkout.git("rev-parse", "HEAD")
    repro(checkout.root)
    new = checkout.commit()
    checkout.write("data/inbox/rows.csv", "changed\n")
    assert ran(checkout, commit=old)[0] == ["make", "judge"]
    folder = opened(checkout, new)
    assert (folder / "dvc.lock").read_bytes() == (checkout.root / "dvc.lock").read_bytes(), "that of the commit"
    assert repro(folder) == ["make", "judge"]
    (checkout.root / "data" / "inbox" / "rows.csv").write_text("again\n")
    assert keep(folder, "nightly", "results\n")
    checkout.write("data/inbox/rows.csv", "changed\n")
    assert ran(checkout, commit=old)[0] == [], "the results before the last ones began from this commit's lock"


def test_a_commit_that_has_the_results_already_gets_none(checkout: Checkout) -> None:
    repro(checkout.root)
    checkout.commit()
    assert ran(checkout) == ([], "")
    assert checkout.git("for-each-ref", "refs/attune") == ""


def test_results_hold_lock_reports_and_changed_params_and_nothing_else(checkout: Checkout) -> None:
    folder = opened(checkout)
    (folder / "params.yaml").write_text("seed: 5\n")
    (folder / "make.py").write_text((folder / "make.py").read_text() + "# touched\n")
    repro(folder)
    commit = keep(folder, "nightly", "nightly: make judge, accuracy 0.9\n")
    names = checkout.git("diff", "--name-only", "HEAD", commit).split()
    assert names == ["dvc.lock", "params.yaml", "reports/metrics.json"]
    assert checkout.git("log", "-1", "--format=%s", commit) == "nightly: make judge, accuracy 0.9"


def test_without_a_name_in_git_attune_is_the_author(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    author = ("log", "-1", "--format=%an <%ae>", NIGHTLY)
    ran(checkout)
    assert checkout.git(*author) == "Attune <attune@localhost>"
    checkout.git("config", "user.name", "Ada")
    checkout.git("config", "user.email", "ada@example.org")
    checkout.write("data/inbox/rows.csv", "b\n")
    ran(checkout)
    assert checkout.git(*author) == "Ada <ada@example.org>"


def test_a_branch_points_at_the_results_only_where_asked_for_and_not_while_it_is_checked_out(
    checkout: Checkout,
) -> None:
    ran(checkout)
    assert checkout.git("branch", "--format=%(refname:short)") == "main"
    branch = branch_of(checkout.root, True, "nightly")
    assert branch == "attune/nightly"
    for seed in (1, 2):
        checkout.commit(**{"params.yaml": f"seed: {seed}\n"})
        _, commit = ran(checkout, branch)
        assert checkout.git("rev-parse", f"refs/heads/{branch}") == commit == checkout.git("rev-parse", NIGHTLY)
    checkout.git("switch", "-q", branch)
    checkout.write("data/inbox/rows.csv", "b\n")
    with pytest.raises(AttuneError, match="git branch failed"):
        ran(checkout, branch, commit="main")
    assert checkout.git("rev-parse", f"refs/heads/{branch}") == commit != checkout.git("rev-parse", NIGHTLY), (
        "they are kept all the same"
    )


@pytest.mark.parametrize("name", ["main", "attune", "-d", "HEAD", "attune/a..b", "attune/a b", "attune/\n"])
def test_what_is_no_branch_for_results_is_refused(checkout: Checkout, name: str) -> None:
    with pytest.raises(AttuneError, match="is no branch for results"):
        branch_of(checkout.root, name, "nightly")


def test_a_branch_on_origin_moves_only_over_what_was_pushed_from_here(checkout: Checkout, tmp_path: Path) -> None:
    checkout.git("clone", "-q", "--bare", str(checkout.root), str(tmp_path / "origin"))
    checkout.git("remote", "add", "origin", str(tmp_path / "origin"))
    origin, branch = Checkout(tmp_path / "origin"), "attune/results"
    for content in ("b", "c"):
        checkout.write("data/inbox/rows.csv", content)
        _, pushed = ran(checkout, branch)
        push_commit(checkout.root, "nightly", pushed, branch)
        assert origin.git("rev-parse", f"refs/heads/{branch}") == pushed
        checkout.write("data/inbox/rows.csv", f"{content}, not pushed")
        ran(checkout, branch)
    theirs = origin.git("commit-tree", f"{pushed}^{{tree}}", "-p", pushed, "-m", "a person's")
    origin.git("update-ref", f"refs/heads/{branch}", theirs)
    checkout.write("data/inbox/rows.csv", "d")
    _, later = ran(checkout, branch)
    for fetched in (False, True):
        if fetched:
            checkout.git("fetch", "-q", "origin")
        with pytest.raises(AttuneError, match="git push failed"):
            push_commit(checkout.root, "nightly", later, branch)
        assert origin.git("rev-parse", f"refs/heads/{branch}") == theirs


def test_changes_are_told_of_a_scheduled_run_only_where_it_did_not_make_them(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.told.artifact import _where

    repro(checkout.root)
    commit = checkout.commit()[:12]
    checkout.write("data/inbox/rows.csv", "other\n")
    folder = opened(checkout)
    (folder / "params.yaml").write_text("seed: 5\n")
    assert repro(folder) == ["make", "judge"]
    monkeypatch.chdir(folder)
    assert _where().commit == commit
    (folder / "make.py").write_text("")
    assert _where().commit == f"{commit} with changes"
    monkeypatch.chdir(checkout.root)
    assert _where().commit == commit
    checkout.write("params.yaml", "seed: 5\n")
    assert _where().commit == f"{commit} with changes", "a person's own run says so of every file"


def test_names_of_deployments_make_names_of_references() -> None:
    names = ["nightly", "New data!", "../../heads/main", "", "ä"]
    assert [reference(name) for name in names] == [
        "refs/attune/nightly",
        "refs/attune/New-data",
        "refs/attune/heads-main",
        "refs/attune/retrain",
        "refs/attune/retrain",
    ]


def test_data_go_to_the_dvc_remote_if_there_is_one(checkout: Checkout, tmp_path: Path) -> None:
    folder = opened(checkout)
    repro(folder)
    assert push_data(folder) == ""
    assert not (tmp_path / "store").exists()
    dvc(checkout.root, "remote", "add", "-q", "--local", "-d", "store", str(tmp_path / "store"))
    dvc(checkout.root, "add", "-q", "data/inbox/rows.csv")
    checkout.commit()
    folder = opened(checkout)
    repro(folder)
    assert push_data(folder) == ""
    pushed = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert {path.read_text() for path in pushed} == {"a\n", "a\nseed: 1\n"}, "own data that DVC keeps, and outs"


def test_a_remote_that_does_not_answer_is_named_without_its_password(checkout: Checkout) -> None:
    url = "http://me:hunter2hunter2@127.0.0.1:9/store"
    dvc(checkout.root, "remote", "add", "-q", "--local", "-d", "store", url)
    folder = opened(checkout)
    repro(folder)
    problem = push_data(folder)
    assert problem.startswith("nothing or not all was pushed to the DVC remote store")
    assert "hunter2" not in problem


def test_a_clone_goes_on_from_what_another_has_pushed(checkout: Checkout, tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    checkout.commit(**{".dvc/config": f"[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n"})
    checkout.git("clone", "-q", "--bare", str(checkout.root), str(tmp_path / "origin"))
    ran_in = []
    for number in (1, 2):
        clone = tmp_path / f"clone{number}"
        checkout.git("clone", "-q", str(tmp_path / "origin"), str(clone))
        folder = take_clone(clone, str(uuid4()), "nightly", "HEAD", lambda _: None)
        ran_in.append(repro(folder))
        if commit := keep(folder, "nightly", "results\n", "attune/results"):
            assert push_data(folder) == ""
            push_commit(folder, "nightly", commit, "attune/results")
    assert ran_in == [["make", "judge"], []]
    origin = Checkout(tmp_path / "origin")
    assert origin.git("rev-parse", "refs/heads/attune/results") == origin.git("rev-parse", NIGHTLY)
    assert origin.git("rev-parse", "main") == checkout.git("rev-parse", "main")


def test_what_is_kept_is_told_in_a_line_and_in_the_commit(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.logging import disable_run_logger

    from flows.retrain import keep_results

    folder = opened(checkout)
    repro(folder)
    place = noted(folder)
    assert isinstance(place, Place)
    monkeypatch.chdir(folder)
    outcomes = {"make": Outcome("success"), "judge": Outcome("cached")}
    with disable_run_logger():
        said = keep_results(place, "nightly", outcomes, "attune/results")
    assert said == f"results are in {NIGHTLY}, and in the branch attune/results"
    subject, _, body = checkout.git("log", "-1", "--format=%B", NIGHTLY).partition("\n")
    assert subject == "nightly: make, accuracy 0.1000"
    assert "judge: cached" in body
    assert f"Attune-Run: {place.run}" in body


def test_what_was_kept_is_taken_over_as_the_documentation_says(checkout: Checkout) -> None:
    ran(checkout)
    checkout.git("checkout", NIGHTLY, "--", "dvc.lock", "reports")
    dvc(checkout.root, "checkout")
    assert (checkout.root / "data" / "made.txt").read_text() == "a\nseed: 1\n"
    assert repro(checkout.root) == []


def test_garbage_collection_spares_results_where_it_is_told_of_them(checkout: Checkout) -> None:
    ran(checkout)
    outs = [path for path in (checkout.root / ".dvc" / "cache" / "files").rglob("*") if path.is_file()]
    dvc(checkout.root, "gc", "--force", "--quiet", "--workspace", "--rev", NIGHTLY)
    assert all(path.exists() for path in outs)
    dvc(checkout.root, "gc", "--force", "--quiet", "--all-commits")
    assert not any(path.exists() for path in outs), "DVC knows branches and tags alone: the documentation says so"
    assert ran(checkout)[0] == ["make"], "what is gone is made again"


def test_nothing_is_recalled_before_the_first_result(checkout: Checkout) -> None:
    assert recall(opened(checkout), "nightly") == ""
