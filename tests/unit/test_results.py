"""What a scheduled run keeps: a memory for the next run, a branch only where asked for, and nobody's branch moved."""

from pathlib import Path
from uuid import uuid4

import pytest

from flows.running.outcome import Outcome
from flows.scheduled import results
from flows.scheduled.branches import check_branch, check_origin
from flows.scheduled.place import Place, noted
from flows.scheduled.results import keep, push_commit, push_data, recall, reference
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


def ran(mine: Checkout, branch: str | None = None, commit: str = "HEAD") -> tuple[list[str], str]:
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


def test_a_branch_is_offered_only_where_asked_for_and_only_moves_forward(checkout: Checkout) -> None:
    ran(checkout)
    assert checkout.git("branch", "--format=%(refname:short)") == "main"
    _, first = ran(checkout, "results")
    assert checkout.git("rev-parse", "results") == first == checkout.git("rev-parse", NIGHTLY)
    checkout.commit(**{"params.yaml": "seed: 2\n"})
    _, second = ran(checkout, "results")
    assert checkout.git("rev-parse", "results") == second
    assert checkout.git("merge-base", first, second) == first, "whoever has fetched it can fast-forward"
    assert checkout.git("rev-parse", f"{second}^") == checkout.git("rev-parse", "main")
    assert ran(checkout)[0] == [], "a result with two parents is a memory, too"


def test_a_persons_branch_is_never_moved(checkout: Checkout) -> None:
    checkout.git("branch", "mine")
    _, commit = ran(checkout, "offered")
    checkout.git("branch", "copy", commit)
    checkout.git("checkout", "-q", "offered")
    checked_out = "checked out somewhere"
    for name, why in {"mine": "somebody's own", "copy": "somebody's own", "offered": checked_out}.items():
        with pytest.raises(AttuneError, match=why):
            check_branch(checkout.root, name)
    checkout.commit(**{"notes.md": "mine now\n"})
    checkout.git("checkout", "-q", "main")
    tip = checkout.git("rev-parse", "offered")
    checkout.write("data/inbox/rows.csv", "b\n")
    with pytest.raises(AttuneError, match="not as Attune left it"):
        ran(checkout, "offered")
    assert checkout.git("rev-parse", "offered") == tip
    assert checkout.git("rev-parse", NIGHTLY) != commit, "the results are kept all the same"


ODD = ["-d", "HEAD", "@", "", "a..b", "a b", "x\ndelete refs/heads/main", "@{-1}", "a.lock", "refs/../x"]
NOT_EVEN_SENT = ["a\0b", "\ud800", "main\u200b", "a" * 300, "ä" * 150, "x" * 10_000_000]


@pytest.mark.parametrize("name", [*ODD, *NOT_EVEN_SENT], ids=range(len(ODD) + len(NOT_EVEN_SENT)))
def test_what_is_no_name_of_a_branch_is_refused(checkout: Checkout, name: str) -> None:
    with pytest.raises(AttuneError, match="no name of a branch"):
        check_branch(checkout.root, name)


def test_a_branch_that_cannot_stand_beside_another_is_refused_at_once(checkout: Checkout) -> None:
    checkout.git("branch", "person/work")
    checkout.git("update-ref", "refs/attune-offered/gone", "HEAD")
    for name in ("person", "person/work/more", "main/x", "gone/x"):
        with pytest.raises(AttuneError, match="cannot stand beside"):
            check_branch(checkout.root, name)
    for name in ("person/other", "perso", "person/work2", "gone"):
        assert check_branch(checkout.root, name) == ""


def with_origin(mine: Checkout, tmp_path: Path) -> Checkout:
    mine.git("clone", "-q", "--bare", str(mine.root), str(tmp_path / "origin"))
    mine.git("remote", "add", "origin", str(tmp_path / "origin"))
    return Checkout(tmp_path / "origin")


def test_a_persons_branch_on_origin_stops_a_run_before_it_starts(checkout: Checkout, tmp_path: Path) -> None:
    from flows.retrain import check_wishes

    origin = with_origin(checkout, tmp_path)
    origin.git("branch", "theirs")
    origin.git("branch", "person/work")
    place = noted(opened(checkout))
    assert place
    for name, why in {"theirs": "on origin is not as Attune left it", "person": "beside .* on origin"}.items():
        check_wishes(place, name, push=False)
        with pytest.raises(AttuneError, match=why):
            check_wishes(place, name, push=True)
    check_wishes(place, "free", push=True)
    checkout.git("remote", "set-url", "origin", str(tmp_path / "away"))
    with pytest.raises(AttuneError, match="ls-remote failed"):
        check_wishes(place, "free", push=True)


def test_a_branch_on_origin_moves_only_from_where_attune_left_it(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = with_origin(checkout, tmp_path)
    _, first = ran(checkout, "results")
    push_commit(checkout.root, "nightly", first, "results")
    checkout.write("data/inbox/rows.csv", "b\n")
    ran(checkout, "results")  # not pushed
    assert check_origin(checkout.root, "results") == first, "an earlier offer of Attune's is Attune's, too"
    checkout.write("data/inbox/rows.csv", "c\n")
    _, third = ran(checkout, "results")
    push_commit(checkout.root, "nightly", third, "results")
    assert origin.git("rev-parse", "results") == third
    assert origin.git("merge-base", first, third) == first
    theirs = origin.git("rev-parse", "main")  # what the new commit stands on: a push without force would move it
    origin.git("update-ref", "refs/heads/results", theirs)
    checkout.write("data/inbox/rows.csv", "d\n")
    _, fourth = ran(checkout, "results")
    with pytest.raises(AttuneError, match="somebody's own"):
        push_commit(checkout.root, "nightly", fourth, "results")
    monkeypatch.setattr(results, "check_origin", lambda *_: third)  # it was moved after the question
    with pytest.raises(AttuneError, match="git push failed"):
        push_commit(checkout.root, "nightly", fourth, "results")
    assert origin.git("rev-parse", "results") == theirs


def test_each_clone_moves_the_branch_on_from_where_the_last_one_left_it(checkout: Checkout, tmp_path: Path) -> None:
    origin, tips = with_origin(checkout, tmp_path), []
    for number in (1, 2):
        origin.git("clone", "-q", str(origin.root), str(tmp_path / f"clone{number}"))
        folder = take_clone(tmp_path / f"clone{number}", str(uuid4()), "nightly", "HEAD", lambda _: None)
        (folder / "data" / "inbox" / "rows.csv").write_text(str(number))
        check_origin(folder, "results")
        repro(folder)
        tips.append(keep(folder, "nightly", "results\n", "results"))
        push_commit(folder, "nightly", tips[-1], "results")
        assert origin.git("rev-parse", "results") == tips[-1]
    assert origin.git("merge-base", *tips) == tips[0]
    first = tmp_path / "clone1"
    (first / "data" / "inbox" / "rows.csv").write_text("3")
    with pytest.raises(AttuneError, match="another clone has moved"):
        check_origin(first, "results")


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
        if commit := keep(folder, "nightly", "results\n", "results"):
            assert push_data(folder) == ""
            push_commit(folder, "nightly", commit, "results")
    assert ran_in == [["make", "judge"], []]
    origin = Checkout(tmp_path / "origin")
    assert origin.git("rev-parse", "results") == origin.git("rev-parse", NIGHTLY)
    assert origin.git("rev-parse", "main") == checkout.git("rev-parse", "main")


def test_what_is_kept_is_told_in_a_line_and_in_the_commit(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.logging import disable_run_logger

    from flows.retrain import check_wishes, keep_results

    folder = opened(checkout)
    repro(folder)
    place = noted(folder)
    assert isinstance(place, Place)
    monkeypatch.chdir(folder)
    with pytest.raises(AttuneError, match="no remote origin"):
        check_wishes(place, None, push=True)
    outcomes = {"make": Outcome("success"), "judge": Outcome("cached")}
    with disable_run_logger():
        said = keep_results(place, "nightly", outcomes, "results")
    assert said == f"results are in {NIGHTLY}, and in the branch results"
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
