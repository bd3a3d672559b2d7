"""What changed between two revisions: settings, stages, code, versions, and rows of the data."""

import re
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Literal

from fsspec import filesystem
from packaging.utils import canonicalize_name

from flows.repository.worktree_files import PINNED
from flows.reviewing.data_changes import Listing, data_changes, read_version
from flows.reviewing.findings import Changes, FileChange, ParamChange, StageChange
from flows.reviewing.revision import Revision
from stages.common.errors import AttuneError
from stages.common.git import git
from stages.common.params.reference import doc_line
from stages.common.pipeline.dvc_status import CODE, Change, differing, params_between
from stages.common.redact import redacted

GENERATED = "generated"  # what programs write; listed last, as nobody reads it line by line
GENERATED_FILES = ("dvc.lock", "params.schema.json", "docs/params.md")
UNEXPLAINED = "nothing that it depends on differs, but what it made does: another kind of machine, or chance"


def changes_between(base: Revision, head: Revision, examples: int) -> Changes:
    """Compare two revisions, with so many rows of each kind of change; what cannot be compared is in `missing`."""
    missing: list[str] = []
    files = _file_changes(base, head)
    params = _param_changes(base, head, missing)
    stages = tuple(_stage_changes(base, head, missing))
    versions = tuple(differing(_pins(base.folder), _pins(head.folder)))
    data: tuple[Listing, ...] | None = None
    try:
        folders = (filesystem("dir", path=str(side.folder), target_protocol="file") for side in (base, head))
        old, new = map(read_version, (base.name, head.name), folders)
        data = tuple(data_changes(old, new, examples, texts=True, mask=head.mask))  # texts are cut and masked
    except AttuneError as error:
        missing.append(f"rows cannot be compared: {error.what}")
    return Changes(params, stages, files, versions, data, tuple(missing))


def _param_changes(base: Revision, head: Revision, missing: list[str]) -> tuple[ParamChange, ...]:
    """Return the settings that differ, with defaults unless the code here does not know one of both files."""
    missing += [
        f"params.yaml of {revision.name} is not what the code here reads: settings are compared without defaults"
        for revision in (base, head)
        if revision.params is None
    ]
    old, new = base.data, head.data
    if base.params and head.params:
        old, new = (params.model_dump(mode="json", by_alias=True) for params in (base.params, head.params))
    return tuple(
        ParamChange(key, before and redacted(before), after and redacted(after), doc_line(key))
        for key, before, after in differing(old, new)
    )


def _file_changes(base: Revision, head: Revision) -> tuple[FileChange, ...]:
    """Return the files that differ, by part of the project: `stages/clean`, `flows`, `params.yaml`.

    A file that moved was removed, and another one added.
    """
    options = ("--numstat", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color")
    printed = git(head.folder, "diff", *options, "--end-of-options", base.commit, head.commit, "--")
    files = []
    for line in filter(None, printed.split("\0")):
        *counts, name = line.split("\t", 2)  # a binary file has `-` for both counts
        path = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        added, removed = (None if count == "-" else int(count) for count in counts)
        parts = PurePosixPath(path).parts
        generated = path in GENERATED_FILES or parts[0] == "reports"
        part = GENERATED if generated else "/".join(parts[: 2 if parts[0] == CODE else 1])
        files.append(FileChange(part, path, added, removed))
    return tuple(sorted(files, key=lambda file: (file.part == GENERATED, file.part, file.path)))


def _stage_changes(base: Revision, head: Revision, missing: list[str]) -> Iterator[StageChange]:
    """Yield what became of each stage, by what both `dvc.lock` say; in the head's order, removed ones last."""
    for name in dict.fromkeys([*head.graph, *base.graph]):
        if name not in head.graph or name not in base.graph:
            yield StageChange(name, "new" if name in head.graph else "removed")
        elif without := [revision.name for revision in (base, head) if name not in revision.lock]:
            missing.append(f"stage {name}: there is no record of it in dvc.lock of {' and of '.join(without)}")
        else:
            outs = _other_hashes(name, "outs", base, head)
            reasons = [redacted(str(reason)) for reason in _reasons(name, base, head)]
            reasons = reasons or ([UNEXPLAINED] if outs else [])
            yield StageChange(name, "ran again" if reasons else "same", tuple(reasons), outs)


def _reasons(name: str, base: Revision, head: Revision) -> Iterator[Change]:
    """Yield what differs among the things that a stage depends on, in the words of a plan."""
    old, new = base.lock[name], head.lock[name]
    if old.get("cmd") != new.get("cmd"):
        yield Change("command", how=f"{old.get('cmd')} → {new.get('cmd')}")
    before, after = (  # whichever files they were read from
        {key: value for section in (entry.get("params") or {}).values() for key, value in (section or {}).items()}
        for entry in (old, new)
    )
    yield from params_between(before, after)
    for path in _other_hashes(name, "deps", base, head):
        yield Change("code" if PurePosixPath(path).parts[0] == CODE else "data", path, "changed")


def _other_hashes(name: str, kind: Literal["deps", "outs"], base: Revision, head: Revision) -> tuple[str, ...]:
    """Return each dependency or out whose bytes differ, or that only one of the two has."""
    old, new = base.hashes(name, kind), head.hashes(name, kind)
    return tuple(path for path in dict.fromkeys([*new, *old]) if old.get(path) != new.get(path))


def other_versions(folder: Path) -> list[str]:
    """Return the packages that are installed here in another version than a project pins, with both versions."""
    # without the build that follows a `+`; packages that only tests need may not be installed
    here: dict[str, str] = {
        canonicalize_name(package.name): package.version.partition("+")[0]
        for package in distributions()
        if package.name
    }
    return [f"{name} {pin} (here {here[name]})" for name, pin in _pins(folder).items() if here.get(name, pin) != pin]


def _pins(folder: Path) -> dict[str, str]:
    """Return the version of each package in a project's constraints.txt, by normalized name (PEP 503)."""
    file = folder / PINNED
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    pins = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;#]+)", text, re.MULTILINE)
    return {canonicalize_name(name): pin for name, pin in pins}
