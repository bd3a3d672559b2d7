"""A scheduled run's own worktree: at a known commit, with the shared cache, and nobody's checkout is touched."""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from dvc.config import Config

from flows.reporting.artifact import places
from flows.reporting.reports import Reports
from flows.repository.results import keep
from flows.repository.worktrees import (
    OLD_SECONDS,
    READY,
    deployment_of,
    held,
    lock_of,
    open_worktree,
    remove,
    worktree_of,
)
from stages.common.errors import AttuneError
from stages.common.git import find_commit, object_at
from tests.projects import Project


def opened(home: Project, commit: str = "HEAD", run: str = "", log: list[str] | None = None) -> Path:
    log = [] if log is None else log
    return open_worktree(home.root, run or str(uuid4()), "nightly", commit, log.append)


def test_a_persons_checkout_is_the_same_byte_for_byte_after_a_run(checkout: Project) -> None:
    checkout.file("mine.txt", "staged")
    checkout.git("add", "mine.txt")
    checkout.file("params.yaml", "seed: 2\n")  # not committed
    checkout.file("half.txt", "untracked")
    checkout.git("branch", "feature")
    hook = checkout.file(".git/hooks/post-checkout", f"#!/bin/sh\ntouch {checkout.root}/hooked\n")
    hook.chmod(0o755)
    (checkout.root / ".attune" / "downloads").mkdir(parents=True)
    status, before = checkout.git("status", "--porcelain"), checkout.seen()
    folder = opened(checkout)
    assert Project(folder).reproduced() == ["make", "judge"]
    assert (folder / "data" / "made.txt").read_text() == "a\nseed: 1\n", "the commit's params, not those being edited"
    assert keep(folder, "nightly", "results")
    (folder / "data" / "inbox" / "rows.csv").write_text("changed by the run")
    remove(checkout.root, folder)
    assert not folder.exists()
    assert checkout.seen() == before
    assert checkout.git("status", "--porcelain") == status
    assert checkout.git("worktree", "list").count("\n") == 0


def test_two_runs_at_once_have_a_worktree_each_and_share_the_cache(checkout: Project) -> None:
    commits = [checkout.commit(**{"params.yaml": f"seed: {seed}\n"}) for seed in (3, 4)]
    ids = ["019a9e5c-1111-7000-8000-00000000000a", "019a9e5c-1111-7000-8000-00000000000b"]  # of the same minute
    with ThreadPoolExecutor() as pool:
        folders = list(pool.map(lambda commit, run: opened(checkout, commit, run), commits, ids))
    assert Project(folders[0]).reproduced() == ["make", "judge"]
    assert [(folder / "params.yaml").read_text() for folder in folders] == ["seed: 3\n", "seed: 4\n"]
    assert list((checkout.root / ".dvc" / "cache" / "files").rglob("*")), "what a run makes is in the shared cache"
    assert not (folders[0] / ".dvc" / "cache").exists()


def test_a_run_that_comes_again_finds_its_worktree_as_it_left_it_unless_it_was_only_half_made(
    checkout: Project,
) -> None:
    run, log = str(uuid4()), []
    folder = opened(checkout, run=run)
    (folder / ".attune" / "checkpoints").mkdir()
    checkout.commit(**{"params.yaml": "seed: 9\n"})
    assert opened(checkout, run=run, log=log) == folder
    assert (folder / ".attune" / "checkpoints").exists()
    assert (folder / "params.yaml").read_text() == "seed: 1\n", "the commit of its first time"
    assert "continues in" in log[-1]
    (folder / READY).unlink()  # it is written last
    assert opened(checkout, run=run) == folder
    assert not (folder / ".attune" / "checkpoints").exists()
    assert deployment_of(folder) == "nightly"


@pytest.mark.parametrize("name", ["--upload-pack=touch x", "none", "HEAD:dvc.yaml", "^HEAD"])
def test_what_is_no_commit_is_refused_and_leaves_nothing(checkout: Project, name: str) -> None:
    with pytest.raises(AttuneError, match="is no commit"):
        opened(checkout, name)
    assert checkout.git("worktree", "list").count("\n") == 0
    assert [path.name for path in (checkout.root / ".attune" / "worktrees").iterdir()] == ["lock"]


def test_a_remotes_branch_is_taken_as_the_remote_has_it_now(checkout: Project, tmp_path: Path) -> None:
    checkout.git("clone", "-q", str(checkout.root), str(tmp_path / "other"))
    other = Project(tmp_path / "other")
    newest = checkout.commit(**{"params.yaml": "seed: 7\n"})
    folder = opened(other, "origin/main")
    assert (folder / "params.yaml").read_text() == "seed: 7\n"
    assert other.git("rev-parse", "HEAD") != newest, "the checkout stays where its owner left it"
    assert not (other.root / ".git" / "FETCH_HEAD").exists()


def test_own_data_are_copied_but_not_what_links_lead_to_nor_over_files_of_the_commit(
    checkout: Project, tmp_path: Path
) -> None:
    inbox, odd = checkout.root / "data" / "inbox", os.fsdecode(b"l\xff\x1b[2J")
    (tmp_path / "large.csv").write_text("large")
    (inbox / odd).symlink_to(tmp_path / "large.csv")
    checkout.file("data/inbox/sub/ä b.csv", "more\n")
    checkout.git("clone", "-q", str(checkout.root), str(inbox / "my-model"))
    checkout.file("data/inbox/both.csv", "the commit's")
    checkout.git("add", "--force", "data/inbox/both.csv")
    commit = checkout.commit()
    checkout.git("reset", "-q", "HEAD~1")
    checkout.file("data/inbox/both.csv", "mine")
    checkout.file("constraints.txt", "prefect==2\n")
    log: list[str] = []
    copied = opened(checkout, commit, log=log) / "data" / "inbox"
    (inbox / "rows.csv").write_text("edited while it runs")
    assert (copied / "rows.csv").read_text() == "a\n"
    assert (copied / "sub" / "ä b.csv").read_text() == "more\n"
    assert (copied / odd).is_symlink() and (copied / odd).resolve() == tmp_path / "large.csv"
    assert any("l⟨U+DCFF⟩⟨U+001B⟩[2J is a link" in line for line in log)
    assert (copied / "my-model" / "make.py").exists() and not (copied / "my-model" / ".git").exists()
    assert (copied / "both.csv").read_text() == "the commit's"
    assert any("both.csv is not copied" in line for line in log)
    assert any("warning: constraints.txt" in line for line in log), "other pinned versions than at home"


def test_data_that_the_commit_leaves_to_dvc_are_those_of_the_commit(checkout: Project) -> None:
    checkout.dvc("add", "-q", "data/inbox/rows.csv")
    checkout.commit()
    checkout.file("data/inbox/rows.csv", "not committed\n")
    assert (opened(checkout) / "data" / "inbox" / "rows.csv").read_text() == "a\n"
    shutil.rmtree(checkout.root / ".dvc" / "cache" / "files")
    assert not (opened(checkout) / "data" / "inbox" / "rows.csv").exists(), "rather none than another version"


def test_relative_paths_of_remotes_mean_the_same_as_at_home(checkout: Project) -> None:
    config = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n"
    checkout.commit(**{".dvc/config": config})
    local = "['remote \"mine\"']\n    url = ssh://host/x\n    keyfile = ../key\n    user = x\n"
    checkout.file(".dvc/config.local", local)
    folder = opened(checkout)
    read = Config(str(folder / ".dvc"))
    assert read["remote"]["store"]["url"] == str(checkout.root.parent / "store")
    assert read["remote"]["mine"]["keyfile"] == str(checkout.root / "key")
    assert read["remote"]["mine"]["user"] == "x"
    assert read["cache"]["dir"] == str(checkout.root / ".dvc" / "cache")
    assert (folder / ".dvc" / "config.local").stat().st_mode & 0o077 == 0


def test_old_worktrees_go_unless_somebody_holds_them(checkout: Project) -> None:
    run = str(uuid4())
    left, at_work, recent = opened(checkout), opened(checkout, run=run), opened(checkout)
    for folder in (left, at_work):
        os.utime(folder / READY, (0, (folder / READY).stat().st_mtime - OLD_SECONDS - 60))
    with held(at_work):
        opened(checkout)
        assert not left.exists() and not lock_of(left).exists()
        assert at_work.exists() and recent.exists()
        with pytest.raises(AttuneError, match="another process is at work"):
            opened(checkout, run=run)
    opened(checkout)
    assert at_work.exists(), "it was left just now"


def test_a_run_refuses_to_work_where_nothing_was_made_for_it(
    checkout: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(uuid4())
    folder = opened(checkout, run=run)
    with pytest.raises(AttuneError, match="no checkout of an Attune project"):
        opened(Project(folder / "data"))
    monkeypatch.chdir(checkout.root)
    for flow_run in (run, None):
        with pytest.raises(AttuneError, match="may be somebody's own"):
            worktree_of(flow_run)
    monkeypatch.chdir(folder)
    with pytest.raises(AttuneError, match="was not made for this run"):
        worktree_of(str(uuid4()))
    with pytest.raises(AttuneError, match="the running flow is of"):
        worktree_of(run)  # the tests' code is not the worktree's


@pytest.mark.parametrize(
    ("environment", "broken", "words"),
    [
        (
            {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"},
            "",
            "dubious ownership.* --add safe.directory",
        ),  # a mounted checkout
        ({"PATH": ""}, "", "git cannot be run in .*install git"),
        ({}, ".git/HEAD", "git [a-z-]+ failed: fatal: not a git repository"),
        ({}, ".git/refs/heads/main", "your current branch appears to be broken"),
        ({}, ".git/config", "bad config line"),
    ],
)
def test_git_that_fails_is_not_taken_for_what_is_not_there(
    environment: dict[str, str], broken: str, words: str, checkout: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert object_at(checkout.root, "HEAD") and not object_at(checkout.root, "nothing")
    monkeypatch.chdir(checkout.root)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if broken:
        checkout.file(broken, "[" if broken.endswith("config") else "")
    with pytest.raises(AttuneError, match=f"(?s){words}"):
        find_commit(checkout.root, "HEAD")
    with pytest.raises(AttuneError, match=f"(?s){words}"):
        opened(checkout)
    commit = places(Reports(), other_params=False)
    assert commit == [] if "PATH" in environment else re.search(words.partition(".*")[0], commit[0])


def test_a_broken_index_is_reported_and_no_checkout_without_changes(
    checkout: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout.root)
    checkout.file("make.py", "")
    checkout.file(".git/index", "cut off")
    assert "index file smaller than expected" in places(Reports(), other_params=False)[0]
    with pytest.raises(AttuneError, match="index file smaller than expected"):
        opened(checkout)


def test_a_repository_without_commits_or_none_at_all_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Project(tmp_path / "home")
    home.file(".dvc/config", "")
    monkeypatch.chdir(home.root)
    with pytest.raises(AttuneError, match="not a git repository"):
        opened(home)
    assert places(Reports(), other_params=False) == []
    home.git("init", "-q")
    with pytest.raises(AttuneError, match="does not have any commits yet"):
        opened(home)
    assert places(Reports(), other_params=False) == []


def test_an_origin_that_does_not_answer_is_no_origin_without_results(checkout: Project, tmp_path: Path) -> None:
    checkout.git("clone", "-q", "--bare", str(checkout.root), str(tmp_path / "origin"))
    checkout.git("remote", "add", "origin", str(tmp_path / "origin"))
    for url, warnings in ((tmp_path / "origin", 0), (tmp_path / "gone", 1)):
        checkout.git("remote", "set-url", "origin", str(url))
        log = list[str]()
        open_worktree(checkout.root, str(uuid4()), "nightly", "HEAD", log.append, fetch=True)
        assert sum(line.startswith("warning: earlier results of origin are not known") for line in log) == warnings
