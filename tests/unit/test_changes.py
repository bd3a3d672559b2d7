"""What changed between two revisions: settings, stages, code, versions and data."""

import copy
import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from flows.reviewing.changes import changes_between, other_versions
from flows.reviewing.findings import Changes, FileChange, ParamChange, StageChange
from flows.reviewing.revision import Revision
from tests.projects import Project
from tests.unit.small_revisions import PARAMS, locked, node, put_data, revision

TRAIN = {"a": ("bad", "write to ann@example.org"), "b": ("good", "fine")}
GRAPH = {
    "clean": node("clean", "data/inbox", "stages/clean", outs=("data/clean/train.parquet",)),
    "finetune": node("finetune", "data/clean/train.parquet", "stages/finetune", outs=("models/finetuned",)),
}
LOCK = {
    "clean": locked({"data/inbox": "1", "stages/clean": "2"}, {"data/clean/train.parquet": "3"}, {"clean": {"min": 3}}),
    "finetune": locked({"data/clean/train.parquet": "3"}, {"models/finetuned": "5"}, {"seed": 13}),
}
Sides = tuple[Revision, Revision]


def commit(folder: Path, files: dict[str, bytes]) -> str:
    """Commit these files and no others; return the commit."""
    project = Project(folder)
    project.git("rm", "-r", "-q", "--cached", "--ignore-unmatch", ".")
    for path, content in files.items():
        project.file(path, content)
    project.git("add", "--", *files)
    project.git("commit", "-q", "--allow-empty", "-m", "change")
    return project.git("rev-parse", "HEAD")


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    """Two revisions that differ in nothing."""
    repository = tmp_path / "head"
    repository.mkdir()
    Project(repository).git("init", "-q")
    only = commit(repository, {"params.yaml": b"seed: 13\n"})
    for folder in (tmp_path / "base", repository):
        put_data(folder, TRAIN)
        Project(folder).file("constraints.txt", "Jinja2==3.1.6\nno-such-thing==1  # why\n")
    plain = {"commit": only, "graph": GRAPH, "lock": LOCK}
    return revision(tmp_path / "base", **plain), revision(repository, "HEAD", **copy.deepcopy(plain))


def changed(sides: Sides, **sections: Any) -> Changes:
    """Compare two revisions after a change of the head's params."""
    return changes_between(sides[0], replace(sides[1], data={**PARAMS, **sections}), 5)


def stages(*sides: Revision) -> dict[str, StageChange]:
    return {stage.stage: stage for stage in changes_between(*sides, 5).stages}


def test_nothing_is_said_of_what_is_the_same(sides: Sides) -> None:
    result = changes_between(*sides, 5)
    assert result == Changes(stages=(StageChange("clean", "same"), StageChange("finetune", "same")))


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_setting_is_shown_from_what_to_what_and_what_it_means(sides: Sides) -> None:
    changes = changed(sides, finetune={"learning_rate": 5e-5}, clean={}, tracking={"run_name": "try"})
    assert changes.params == (
        ParamChange("finetune.learning_rate", "0.0001", "5e-05", "Peak learning rate."),  # the default, to begin with
        ParamChange("tracking.run_name", "null", "try", "Name of the MLflow run; null: made of model and settings."),
    )


def test_passwords_in_settings_are_not_shown(sides: Sides) -> None:
    source = {**PARAMS["ingest"]["sources"][0], "path": None, "url": "https://me:hunter22@example.org/a.csv"}
    result = changed(sides, ingest={**PARAMS["ingest"], "sources": [source]})
    assert "example.org" in str(result.params) and "hunter22" not in str(result)


def test_params_that_the_code_here_does_not_know_are_compared_as_they_stand(sides: Sides) -> None:
    result = changed(sides, finetune={"learnt": 1}, seed=14)
    assert [change[:3] for change in result.params] == [("seed", "13", "14"), ("finetune", None, '{"learnt": 1}')]
    assert len(result.missing) == 1 and "params.yaml of HEAD" in result.missing[0]


# ── stages ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_stage_ran_again_for_its_command_settings_data_and_code(sides: Sides) -> None:
    deps = {"data/inbox": "9", "stages/clean": "7"}
    sides[1].lock["clean"].update(locked(deps, {"data/clean/train.parquet": "8"}, {"clean": {"min": 5}}, cmd="new"))
    sides[1].lock["finetune"]["deps"][0]["md5"] = "8"
    result = stages(*sides)
    reasons = ("command: python → new", "params: clean.min 3 → 5", "data: data/inbox changed")
    reasons += ("code: stages/clean changed",)
    assert result["clean"] == StageChange("clean", "ran again", reasons, ("data/clean/train.parquet",))
    # the model has the same bytes although the stage ran: no out is named
    assert result["finetune"] == StageChange("finetune", "ran again", ("data: data/clean/train.parquet changed",))


def test_a_stage_that_made_something_else_of_the_same_is_named(sides: Sides) -> None:
    sides[1].lock["finetune"]["outs"][0]["md5"] = "6"
    result = stages(*sides)["finetune"]
    assert (result.kind, result.outs) == ("ran again", ("models/finetuned",))
    assert result.reasons[0].startswith("nothing that it depends on differs")


def test_stages_that_are_new_or_gone_are_named_and_one_without_a_record_is_a_line(sides: Sides) -> None:
    graph = {"clean": GRAPH["clean"], "export": node("export")}
    result = stages(sides[0], replace(sides[1], graph=graph))
    kinds = {name: stage.kind for name, stage in result.items()}
    assert kinds == {"clean": "same", "export": "new", "finetune": "removed"}
    del sides[1].lock["finetune"]
    missing = changes_between(*sides, 5).missing
    assert missing == ("stage finetune: there is no record of it in dvc.lock of HEAD",)


# ── code, versions and data ───────────────────────────────────────────────────────────────────────────────────────────
def test_files_are_counted_by_git_and_listed_by_part_what_programs_write_last(sides: Sides) -> None:
    base, head = sides
    files = {"stages/clean/reject.py": b"1\n2\n3\n", "stages/common/text/pii.py": b"1\n", "dvc.lock": b"1\n" * 50}
    files |= {"docs/tracking.md": b"1\n", os.fsdecode(b"data/a\tpicture \xff.png"): b"\x00\x01"}
    head = replace(head, commit=commit(head.folder, files))
    assert changes_between(base, head, 5).files == (
        FileChange("data", "data/a\tpicture \N{REPLACEMENT CHARACTER}.png", None, None),
        FileChange("docs", "docs/tracking.md", 1, 0),
        FileChange("params.yaml", "params.yaml", 0, 1),
        FileChange("stages/clean", "stages/clean/reject.py", 3, 0),
        FileChange("stages/common", "stages/common/text/pii.py", 1, 0),
        FileChange("generated", "dvc.lock", 50, 0),
    )


def test_versions_are_shown_from_what_to_what_and_those_that_are_not_installed(sides: Sides) -> None:
    pins = "# pins\njinja2==3.1.5\nnew_one==2 ; python_version > '3'\nwhat is this\n"
    Project(sides[1].folder).file("constraints.txt", pins)
    result, installed = changes_between(*sides, 5).versions, version("jinja2")
    assert result == (
        ("jinja2", "3.1.6", "3.1.5"),
        ("no-such-thing", "1", None),
        ("new-one", None, "2"),
    )
    assert other_versions(sides[1].folder) == [f"jinja2 3.1.5 (here {installed})"]


def test_relabelled_rows_are_listed_with_their_texts_masked_unless_valid_params_say_otherwise(sides: Sides) -> None:
    put_data(sides[1].folder, {**TRAIN, "a": ("good", "write to ann@example.org")})
    rows = {listing.title: listing.rows for listing in changes_between(*sides, 5).data or ()}
    assert rows["Relabelled: 1"] == [["a", "train", "bad", "good", "write to [EMAIL]"]]
    bare = {**PARAMS["evaluate"], "mask_pii": False}
    assert "ann@" in str(changed(sides, evaluate=bare).data)
    assert "ann@" not in str(changed(sides, evaluate={**bare, "nonsense": 1}).data)


@pytest.mark.parametrize("content", [None, "PAR1"])
def test_a_table_that_is_gone_or_broken_is_a_line(content: str | None, sides: Sides) -> None:
    (sides[1].folder / "data/clean/validation.parquet").unlink()
    if content:
        Project(sides[1].folder).file("data/clean/validation.parquet", content)
    result = changes_between(*sides, 5)
    assert result.data is None and result.missing[0].startswith("rows cannot be compared: ")
    assert "data/clean/validation.parquet" in result.missing[0]
