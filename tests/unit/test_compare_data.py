"""What differs between two versions of the data: real Git, real DVC, nothing checked out."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dvc.api import DVCFileSystem
from fsspec import filesystem
from hypothesis import given
from hypothesis import strategies as st

from flows.compare_data import main
from flows.reviewing.data_changes import Version, data_changes, read_version
from stages.common.schemas import SPLITS
from tests.projects import Project, toy_project
from tests.unit.small_revisions import put_table

REJECTED = {"id": pl.String, "stage": pl.String, "rule": pl.String}
ROWS = {"id": pl.String, "text": pl.String, "label": pl.String, "split": pl.String, "fold": pl.Int16}


def version(
    name: str,
    rows: dict[str, tuple[str, str]],
    rejected: dict[str, tuple[str, str]] | None = None,
    task: str = "text-classification",
) -> Version:
    """Rows by id with (split, label), and rejected ones with (stage, rule)."""
    kept = [(row, f"text of {row}", label, split, None) for row, (split, label) in rows.items()]
    out = [(row, *stage_and_rule) for row, stage_and_rule in (rejected or {}).items()]
    return Version(name, pl.DataFrame(kept, ROWS, orient="row"), pl.DataFrame(out, REJECTED, orient="row"), task)


BASE = version(
    "old",
    {"a": ("train", "x"), "b": ("train", "x"), "c": ("test", "y"), "d": ("validation", "y"), "e": ("train", "lost")},
    {"f": ("clean", "length"), "g": ("ingest", "not_drawn")},
)
HEAD = version(
    "new",
    {"a": ("train", "x"), "b": ("train", "y"), "c": ("train", "y"), "f": ("test", "x"), "h": ("train", "new")},
    {"d": ("clean", "near_duplicate"), "g": ("ingest", "not_drawn")},
)


def test_added_removed_relabelled_and_moved_rows_and_labels_are_told_apart() -> None:
    tables = {listing.title: listing.rows for listing in data_changes(BASE, HEAD, 5)}
    assert tables["Added: 2"] == [["f", "test", "x", "length"], ["h", "train", "new", "not in the sources"]]
    assert tables["Removed: 2"] == [
        ["d", "validation", "y", "near_duplicate"],
        ["e", "train", "lost", "not in the sources"],
    ]
    assert tables["Relabelled: 1"] == [["b", "train", "x", "y"]]
    assert tables["Moved to another split: 1"] == [["c", "test", "train", "y"]]
    assert tables["Splits"] == [
        # split, old, new, added, removed, relabelled, in, out
        ["train", "3", "4", "1", "1", "1", "1", "0"],
        ["validation", "1", "0", "0", "1", "0", "0", "0"],
        ["test", "1", "1", "1", "0", "0", "0", "1"],
    ]
    assert tables["Rejected"] == [
        ["ingest", "not_drawn", "1", "1", "–"],
        ["clean", "length", "1", "0", "-1"],
        ["clean", "near_duplicate", "0", "1", "+1"],
    ]
    assert sorted(tables["Labels"]) == [
        ["lost (lost)", "1 → 0", "0 → 0", "0 → 0"],
        ["new (new)", "0 → 1", "0 → 0", "0 → 0"],
        ["x", "2 → 1", "0 → 0", "0 → 1"],
        ["y", "0 → 2", "1 → 0", "1 → 0"],
    ]


def test_names_of_sets_and_deciles_of_numbers_are_counted_and_what_a_set_lost_or_got_is_named() -> None:
    old = {"a": '["x","y"]', "b": '["x"]', "c": "[]", "d": '["y"]'}
    new = {"a": '["x","z"]', "b": '["x","y"]', "c": '["x"]', "d": '["y"]'}
    base, head = ({row: ("train", label) for row, label in labels.items()} for labels in (old, new))
    sides = version("old", base, task="multi-label"), version("new", head, task="multi-label")
    tables = {listing.title: listing.rows for listing in data_changes(*sides, 5)}
    assert [row[:2] for row in tables["Labels"]] == [["x", "2 → 3"], ["z (new)", "0 → 1"], ["y", "2 → 2"]]
    assert [row[2:] for row in tables["Relabelled: 3"]] == [["y", "z"], ["–", "y"], ["[]", "x"]]
    whole = data_changes(sides[0], version("new", head), 5)[1]  # the base's labels are of another task
    assert ['["x","z"] (new)', "0 → 1"] in [row[:2] for row in whole.rows]

    numbers = {f"r{number}": ("train", str(number)) for number in range(50)}
    changed = numbers | {"r3": ("train", "49.5")}
    sides = version("old", numbers, task="regression"), version("new", changed, task="regression")
    tables = {listing.title: listing.rows for listing in data_changes(*sides, 5)}
    assert len(tables["Labels"]) == 10 and ["below 5", "5 → 4"] in [row[:2] for row in tables["Labels"]]
    assert tables["Relabelled: 1"] == [["r3", "train", "3", "49.5"]]


def test_texts_are_shown_only_when_asked_for_and_all_rows_are_counted_but_few_listed() -> None:
    assert "text of" not in str(data_changes(BASE, HEAD, 5))
    assert "text of h" in str(data_changes(BASE, HEAD, 5, texts=True))
    (added,) = (listing for listing in data_changes(BASE, HEAD, 1) if listing.title == "Added: 2")
    assert len(added.rows) == 1


VERSION = st.dictionaries(
    st.sampled_from([f"r{number}" for number in range(12)]),
    st.tuples(st.sampled_from(["train", "validation", "test"]), st.sampled_from("xyz")),
)


@given(VERSION, VERSION, st.randoms())
def test_the_counts_add_up_for_any_two_versions(old: Any, new: Any, rng: random.Random) -> None:
    base, head = version("old", old), version("new", new)
    listings = data_changes(base, head, 20)
    if not listings:
        assert old == new
        return
    for _, old_rows, new_rows, added, removed, _, moved_in, moved_out in listings[0].rows:
        assert int(old_rows) + int(added) + int(moved_in) - int(removed) - int(moved_out) == int(new_rows)
    order = list(range(head.rows.height))
    rng.shuffle(order)
    assert data_changes(base, Version("new", head.rows[order], head.rejected), 20) == listings


# ── revisions of a real project ─────────────────────────────────────────────────────────────────────────────────────
GRAPH = """stages:
  clean:
    cmd: python make.py
    deps: [make.py]
    outs: [data/clean/train.parquet, data/clean/validation.parquet, data/clean/test.parquet,
           data/clean/rejected.parquet, data/raw/rejected.parquet]
"""


def write(root: Path, made: Version) -> None:
    tables = {f"data/clean/{split}.parquet": made.rows.filter(split=split).drop("split") for split in SPLITS}
    tables["data/clean/rejected.parquet"] = made.rejected.filter(stage="clean")
    tables["data/raw/rejected.parquet"] = made.rejected.filter(stage="ingest")
    for path, table in tables.items():
        put_table(root, path, table)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose data two commits made, after one that has none."""
    mine = toy_project(tmp_path_factory.mktemp("compare") / "project")
    for made in (BASE, HEAD):
        write(mine.root, made)
        mine.file("dvc.yaml", GRAPH)
        mine.file("make.py", f"# makes {made.name}")
        mine.dvc("commit", "-q", "-f")
        mine.commit()
    return mine


@pytest.fixture
def compare(repository: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Return a function that runs the program in the repository; what a test writes there is gone in the end."""
    monkeypatch.chdir(repository.root)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        return main(list(arguments)), *capsys.readouterr()

    yield run
    write(repository.root, HEAD)


def test_two_revisions_or_head_and_the_folder_are_compared(repository: Project, compare: Any) -> None:
    before = repository.seen()
    code, printed, _ = compare("HEAD~1", "HEAD")
    assert code == 0
    assert "Added: 2" in printed and "HEAD~1" in printed and "near_duplicate" in printed
    assert compare()[1].split() == ["Data:", "HEAD", "→", "workspace", "They", "hold", "the", "same", "data."]
    assert repository.seen() == before


def test_labels_are_read_as_the_task_in_dvc_lock_has_them(
    repository: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = repository.copy(tmp_path / "sets")
    monkeypatch.chdir(mine.root)
    lock = (mine.root / "dvc.lock").read_text(encoding="utf-8")
    for task, read in (("multi-label", "multi-label"), ("of the past", "text-classification")):
        params = f"    params:\n      params.yaml:\n        task: {task}\n"
        mine.commit(**{"dvc.lock": lock.replace("    deps:\n", f"{params}    deps:\n", 1)})
        for files in (DVCFileSystem(rev="HEAD"), filesystem("file")):
            assert read_version("it", files).task == read


def test_rows_whose_fold_alone_changed_are_listed(repository: Project, compare: Any) -> None:
    rows = HEAD.rows.with_columns(fold=pl.when(pl.col("id") == "a").then(1).cast(pl.Int16))
    write(repository.root, Version("folds", rows, HEAD.rejected))
    assert "Another fold: 1" in compare()[1]
    write(repository.root, Version("older", HEAD.rows.drop("fold"), HEAD.rejected))
    assert "hold the same data" in compare()[1]


def test_the_markdown_file_is_a_report_with_harmless_data(repository: Project, compare: Any, tmp_path: Path) -> None:
    write(repository.root, version("hostile", {"a": ("train", "<img src=x>|[a](http://evil)\x1b[31m")}))
    code, printed, _ = compare("HEAD", "--markdown", str(tmp_path / "changes.md"), "--texts")
    assert code == 0 and "\x1b[31m" not in printed
    page = (tmp_path / "changes.md").read_text(encoding="utf-8")
    assert page.startswith("# Data: HEAD → workspace\n\n## Splits\n\n| split | HEAD | workspace | added |")
    assert "| `<img src=x>¦[a](http://evil)⟨U+001B⟩[31m` |" in page
    assert "text of a" in page


@pytest.mark.parametrize(
    ("revisions", "expected"),
    [
        (["HEAD", "--", "-\x1b[31m"], "'-⟨U+001B⟩[31m' is no commit of "),
        (
            ["HEAD~2"],
            "HEAD~2 has no data/clean/train.parquet\n  → make run; or take a revision whose dvc.lock lists it",
        ),
        (["workspace"], "workspace has no data/clean/train.parquet\n  → make run"),
    ],
)
def test_what_cannot_be_read_is_named(repository: Project, compare: Any, revisions: list[str], expected: str) -> None:
    (repository.root / "data/clean/train.parquet").unlink()
    code, _, error = compare(*revisions)
    assert code == 1
    assert expected in error


def test_where_the_cache_is_empty_a_remote_is_read(repository: Project, compare: Any, tmp_path: Path) -> None:
    repository.dvc("remote", "add", "-q", "--local", "-d", "store", str(tmp_path / "store"))
    repository.dvc("push", "-q", "--all-commits")
    cache = repository.root / ".dvc" / "cache"
    cache.rename(cache.with_name("away"))
    try:
        with_remote = compare("HEAD~1", "HEAD")
        shutil.rmtree(cache, ignore_errors=True)
        repository.dvc("remote", "remove", "--local", "store")
        code, _, error = compare("HEAD~1")
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        cache.with_name("away").rename(cache)
    assert with_remote[0] == 0 and "Added: 2" in with_remote[1]
    assert code == 1
    assert "data/clean/train.parquet of HEAD~1 is neither in DVC's cache nor in its remote" in error
    assert ".venv/bin/dvc fetch --all-commits" in error
