"""A scheduled run's own worktree: at a known commit, with the shared cache, and nobody's checkout is touched."""

import fcntl
import os
import shutil
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from flows.scheduled.place import OLD_SECONDS, Place, held, here, leave, lock_of, note, noted
from flows.scheduled.results import keep
from flows.worktree import open_worktree, take_clone
from stages.common.errors import AttuneError
from tests.unit.small_checkout import Checkout, dvc, make_checkout, repro


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    mine = make_checkout(tmp_path / "home")
    mine.write("data/inbox/rows.csv", "a\n")
    return mine


def opened(mine: Checkout, commit: str = "HEAD", run: str = "", log: list[str] | None = None) -> Path:
    said = [] if log is None else log
    return open_worktree(mine.root, run or str(uuid4()), "nightly", commit, said.append)


def test_a_persons_checkout_is_the_same_byte_for_byte_after_a_run(checkout: Checkout) -> None:
    checkout.write("mine.txt", "staged")
    checkout.git("add", "mine.txt")
    checkout.write("params.yaml", "seed: 2\n")  # not committed
    checkout.write("half.txt", "untracked")
    checkout.git("branch", "feature")
    hook = checkout.write(".git/hooks/post-checkout", f"#!/bin/sh\ntouch {checkout.root}/hooked\n")
    hook.chmod(0o755)
    (checkout.root / ".attune" / "downloads").mkdir(parents=True)
    status, before = checkout.git("status", "--porcelain"), checkout.seen()
    folder = opened(checkout)
    assert repro(folder) == ["make", "judge"]
    assert (folder / "data" / "made.txt").read_text() == "a\nseed: 1\n", "the commit's params, not those being edited"
    assert keep(folder, "nightly", "results")
    place = noted(folder)
    assert place
    (folder / "data" / "inbox" / "rows.csv").write_text("changed by the run")
    os.chdir(folder)
    leave(place)
    assert not folder.exists()
    assert Path.cwd() == checkout.root
    assert checkout.seen() == before
    assert checkout.git("status", "--porcelain") == status
    assert checkout.git("worktree", "list").count("\n") == 0


def test_two_runs_at_once_have_a_worktree_each_and_share_the_cache(checkout: Checkout) -> None:
    commits = [checkout.commit(**{"params.yaml": f"seed: {seed}\n"}) for seed in (3, 4)]
    folders: dict[str, Path] = {}
    threads = [
        threading.Thread(target=lambda commit=commit: folders.update({commit: opened(checkout, commit)}))
        for commit in commits
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(repro(folders[commits[0]])) == ["judge", "make"]
    assert [(folders[one] / "params.yaml").read_text() for one in commits] == ["seed: 3\n", "seed: 4\n"]
    assert list((checkout.root / ".dvc" / "cache" / "files").rglob("*")), "what a run makes is in the shared cache"
    assert not (folders[commits[0]] / ".dvc" / "cache").exists()


def test_a_run_that_comes_again_finds_its_worktree_as_it_left_it(checkout: Checkout) -> None:
    run, said = str(uuid4()), []
    folder = opened(checkout, run=run)
    (folder / ".attune" / "checkpoints").mkdir()
    checkout.commit(**{"params.yaml": "seed: 9\n"})
    assert opened(checkout, run=run, log=said) == folder
    assert (folder / ".attune" / "checkpoints").exists()
    assert (folder / "params.yaml").read_text() == "seed: 1\n", "the commit of its first time"
    assert "as it was left" in said[-1]


def test_a_worktree_that_was_only_half_made_is_made_anew(checkout: Checkout) -> None:
    run = str(uuid4())
    folder = opened(checkout, run=run)
    note = Path(checkout.git("-C", str(folder), "rev-parse", "--absolute-git-dir")) / "attune.json"
    note.unlink()  # it is written last
    (folder / "left.txt").write_text("")
    assert opened(checkout, run=run) == folder
    assert not (folder / "left.txt").exists()
    assert note.exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"folder": 1, "home": 2, "run": 3, "name": 4}', "\udcff"])
def test_a_note_that_cannot_be_read_is_told_with_what_to_do(checkout: Checkout, content: str) -> None:
    run = str(uuid4())
    folder = opened(checkout, run=run)
    path = Path(checkout.git("-C", str(folder), "rev-parse", "--absolute-git-dir")) / "attune.json"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(AttuneError, match="cannot be read") as caught:
        opened(checkout, run=run)
    assert str(folder) in caught.value.what
    assert str(path) in caught.value.what
    path.unlink()  # as it says
    assert opened(checkout, run=run) == folder


def test_a_note_is_whole_even_if_its_writer_is_killed(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    place = noted(opened(checkout))
    assert place
    replace = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if path.name.startswith("attune.json"):
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        note(Place(place.folder, place.home, "another", place.name))
    assert noted(place.folder) == place


def test_runs_of_the_same_minute_do_not_share_a_worktree(checkout: Checkout) -> None:
    one, two = "019a9e5c-1111-7000-8000-00000000000a", "019a9e5c-1111-7000-8000-00000000000b"
    assert opened(checkout, run=one) != opened(checkout, run=two)


@pytest.mark.parametrize(
    "name",
    [
        "--upload-pack=touch x",
        "-f",
        "HEAD\nmain",
        "",
        "HEAD; ls",
        "none",
        "HEAD:dvc.yaml",
        "a" * 300,
        "\x1b[2J",
        "^HEAD",
    ],
)
def test_what_is_no_commit_is_refused_and_leaves_nothing(checkout: Checkout, name: str) -> None:
    with pytest.raises(AttuneError, match="is no"):
        opened(checkout, name)
    assert checkout.git("worktree", "list").count("\n") == 0
    assert [path.name for path in (checkout.root / ".attune" / "worktrees").iterdir()] == ["lock"]


def test_a_remotes_branch_is_taken_as_the_remote_has_it_now(checkout: Checkout, tmp_path: Path) -> None:
    checkout.git("clone", "-q", str(checkout.root), str(tmp_path / "other"))
    mine, upstream = Checkout(tmp_path / "other"), checkout
    newest = upstream.commit(**{"params.yaml": "seed: 7\n"})
    folder = opened(mine, "origin/main")
    assert (folder / "params.yaml").read_text() == "seed: 7\n"
    assert mine.git("rev-parse", "HEAD") != newest, "the checkout stays where its owner left it"
    assert not (mine.root / ".git" / "FETCH_HEAD").exists()


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AttuneError, match="no checkout of an Attune project"):
        open_worktree(tmp_path, str(uuid4()), "nightly", "HEAD", print)


def test_own_data_are_taken_along_and_links_out_of_the_inbox_are_not_copied(checkout: Checkout, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    inbox = checkout.root / "data" / "inbox"
    (inbox / "out.csv").symlink_to(secret)
    (inbox / "in.csv").symlink_to("rows.csv")
    checkout.write("data/inbox/sub/ä b.csv", "more\n")
    said: list[str] = []
    copied = opened(checkout, log=said) / "data" / "inbox"
    (inbox / "rows.csv").write_text("edited while it runs")
    assert (copied / "rows.csv").read_text() == (copied / "in.csv").read_text() == "a\n"
    assert (copied / "sub" / "ä b.csv").read_text() == "more\n"
    assert (copied / "out.csv").is_symlink()
    assert (copied / "out.csv").resolve() == secret
    assert not (copied / "in.csv").is_symlink()
    assert any("out.csv is a link" in line for line in said)


def test_what_lies_behind_links_of_the_commit_is_not_written_to(checkout: Checkout, tmp_path: Path) -> None:
    elsewhere, inbox = tmp_path / "elsewhere", checkout.root / "data" / "inbox"
    (elsewhere / "sub").mkdir(parents=True)
    (elsewhere / "data.csv").write_text("precious")
    (inbox / "linked.csv").symlink_to(elsewhere / "data.csv")
    (inbox / "sub").symlink_to(elsewhere / "sub")
    (inbox / "loop").symlink_to("loop")
    (inbox / "file").write_text("of the commit")
    checkout.git("add", "--force", "data/inbox/linked.csv", "data/inbox/sub", "data/inbox/loop", "data/inbox/file")
    commit = checkout.commit()
    checkout.git("reset", "-q", "HEAD~1")
    for name in ("linked.csv", "sub", "loop", "file"):
        (inbox / name).unlink()
    for name in ("linked.csv", "sub/x.csv", "sub/deep/x.csv", "loop/x.csv", "file/x.csv", "fine/x.csv"):
        checkout.write(f"data/inbox/{name}", "mine")
    said: list[str] = []
    copied = opened(checkout, commit, log=said) / "data" / "inbox"
    assert (elsewhere / "data.csv").read_text() == "precious"
    assert not any((elsewhere / "sub").iterdir())
    assert (copied / "linked.csv").is_symlink()
    assert (copied / "file").read_text() == "of the commit"
    assert (copied / "fine" / "x.csv").read_text() == "mine"
    assert sum("not taken along" in line for line in said) == 5
    assert {path.name for path in (copied / "fine").iterdir()} == {"x.csv"}, "nothing half copied is left"


def test_a_repository_among_the_own_data_is_taken_along_without_its_history(checkout: Checkout) -> None:
    inbox = checkout.root / "data" / "inbox"
    checkout.git("clone", "-q", str(checkout.root), str(inbox / "my-model"))
    (inbox / "my-model" / "weights").mkdir()
    (inbox / "my-model" / "weights" / "one.bin").write_bytes(b"\0\1")
    (inbox / "my-model" / "to").symlink_to("weights")
    copied = opened(checkout) / "data" / "inbox" / "my-model"
    assert (copied / "weights" / "one.bin").read_bytes() == b"\0\1"
    assert (copied / "make.py").read_bytes() == (inbox / "my-model" / "make.py").read_bytes()
    assert (copied / "to").is_symlink()
    assert not (copied / ".git").exists()


def test_the_log_can_be_sent_whatever_files_are_called(checkout: Checkout, tmp_path: Path) -> None:
    odd = os.fsdecode(b"l\xff\x1b[2J")
    (checkout.root / "data" / "inbox" / odd).symlink_to(tmp_path)
    os.mkfifo(checkout.root / "data" / "inbox" / f"{odd}2")
    said: list[str] = []
    folder = opened(checkout, log=said)
    assert (folder / "data" / "inbox" / odd).is_symlink()
    assert any("l⟨U+DCFF⟩⟨U+001B⟩[2J is a link" in line for line in said)
    assert all(line.isprintable() and line.encode() for line in said)


def test_data_that_the_commit_leaves_to_dvc_are_those_of_the_commit(checkout: Checkout) -> None:
    dvc(checkout.root, "add", "-q", "data/inbox/rows.csv")
    checkout.commit()
    checkout.write("data/inbox/rows.csv", "not committed\n")
    assert (opened(checkout) / "data" / "inbox" / "rows.csv").read_text() == "a\n"
    shutil.rmtree(checkout.root / ".dvc" / "cache" / "files")
    assert not (opened(checkout) / "data" / "inbox" / "rows.csv").exists(), "rather none than another version"


def test_relative_paths_of_remotes_mean_the_same_as_at_home(checkout: Checkout) -> None:
    from dvc.config import Config

    config = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n"
    checkout.commit(**{".dvc/config": config})
    local = "['remote \"mine\"']\n    url = ssh://host/x\n    keyfile = ../key\n    user = x\n"
    checkout.write(".dvc/config.local", local)
    folder = opened(checkout)
    read = Config(str(folder / ".dvc"))
    assert read["remote"]["store"]["url"] == str(checkout.root.parent / "store")
    assert read["remote"]["mine"]["keyfile"] == str(checkout.root / "key")
    assert read["remote"]["mine"]["user"] == "x"
    assert read["cache"]["dir"] == str(checkout.root / ".dvc" / "cache")
    assert (folder / ".dvc" / "config.local").stat().st_mode & 0o077 == 0


def test_other_pinned_versions_than_at_home_are_told(checkout: Checkout) -> None:
    first = checkout.git("rev-parse", "HEAD")
    checkout.commit(**{"constraints.txt": "prefect==2\n"})
    said: list[str] = []
    opened(checkout, first, log=said)
    assert any("warning: constraints.txt" in line for line in said)
    said.clear()
    opened(checkout, log=said)
    assert not any("warning" in line for line in said)


def test_old_worktrees_go_unless_somebody_holds_them(checkout: Checkout) -> None:
    left, at_work, recent = (opened(checkout) for _ in range(3))
    for folder in (left, at_work):
        note = Path(checkout.git("-C", str(folder), "rev-parse", "--absolute-git-dir")) / "attune.json"
        os.utime(note, (0, note.stat().st_mtime - OLD_SECONDS - 60))
    place = noted(at_work)
    assert place
    with held(place):
        opened(checkout)
        assert not left.exists()
        assert not lock_of(left).exists()
        assert at_work.exists()
        assert recent.exists()
        with pytest.raises(AttuneError, match="another process is at work"):
            opened(checkout, run=place.run)
    opened(checkout)
    assert at_work.exists(), "it was left just now"


def test_a_persons_worktree_on_a_disk_that_is_away_is_not_forgotten(checkout: Checkout, tmp_path: Path) -> None:
    checkout.git("worktree", "add", "-q", str(tmp_path / "disk"))
    (tmp_path / "disk").rename(tmp_path / "away")
    folder = opened(checkout)
    shutil.rmtree(folder)  # as `make clean` does
    opened(checkout)
    listed = checkout.git("worktree", "list")
    assert str(tmp_path / "disk") in listed
    assert str(folder) not in listed


def test_a_run_refuses_to_work_where_nothing_was_made_for_it(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(uuid4())
    folder = opened(checkout, run=run)
    monkeypatch.chdir(checkout.root)
    for asked in (run, None):
        with pytest.raises(AttuneError, match="may be somebody's own"):
            here(asked)
    monkeypatch.chdir(folder)
    with pytest.raises(AttuneError, match="was not made for this run"):
        here(str(uuid4()))
    with pytest.raises(AttuneError, match="the running flow is of"):
        here(run)  # the tests' code is not the worktree's


def test_a_clone_of_its_own_is_taken_only_if_it_holds_nothing_of_anybody(checkout: Checkout, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(AttuneError, match="may be somebody's own"):
        take_clone(checkout.root, str(uuid4()), "nightly", "HEAD", said.append)
    checkout.git("clone", "-q", str(checkout.root), str(tmp_path / "clone"))
    run = str(uuid4())
    clone = take_clone(tmp_path / "clone", run, "nightly", "origin/main", said.append)
    place = noted(clone)
    assert place == Place(clone, clone, run, "nightly")
    repro(clone)
    assert take_clone(clone, run, "nightly", "HEAD", said.append) == clone, "the same run may come again"
    with held(place):
        leave(place)
    assert clone.exists()


def test_the_lock_of_a_run_is_let_go_however_its_process_ends(checkout: Checkout) -> None:
    place = noted(opened(checkout))
    assert place
    with held(place), place.lock.open("w") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with held(place):
        pass


def test_tracking_goes_to_the_store_of_the_checkout(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.retrain import share_tracking

    place = noted(opened(checkout))
    assert place
    monkeypatch.chdir(place.folder)
    at_home = f"sqlite:///{checkout.root}/mlflow.db"
    for said, meant in {"": at_home, "sqlite:///mlflow.db": at_home, "http://host:5000": "http://host:5000"}.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", said)
        share_tracking(place)
        assert os.environ["MLFLOW_TRACKING_URI"] == meant
    assert Path.cwd() == place.folder


def test_only_one_run_at_a_time_downloads_into_the_shared_folder(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages.common.stage import _downloads_alone

    folder, done = opened(checkout), threading.Event()
    monkeypatch.chdir(folder)

    def ingest() -> None:
        with _downloads_alone("ingest"):
            done.set()

    with (checkout.root / ".attune" / "downloads" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=ingest)
        thread.start()
        assert not done.wait(0.3)
        with _downloads_alone("clean"):
            pass
    assert done.wait(10)
    thread.join()
    assert "waits for another run" in capsys.readouterr().out
