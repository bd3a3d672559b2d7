"""What changed between two revisions: settings, stages, code, versions, data, and what the checks of tables say."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flows.git import GitFailed, git
from flows.reviewing.data_differences import row_changes, typed_params, validation_changes
from flows.reviewing.findings import Changes, FileChange, ParamChange, StageChange, VersionChange
from flows.reviewing.revision import Revision
from stages.common.params import Params
from stages.common.params.manual import doc_line, doc_lines
from stages.common.recorded import CODE, Change, differing, params_between
from stages.common.redact import redacted
from stages.common.shown import listed

PINNED = "constraints.txt"
GENERATED = "generated"  # what programs write; listed last, as nobody reads it line by line
GENERATED_FILES = ("dvc.lock", "params.schema.json", "docs/params.md")
PARTS = {"dvc.yaml": "pipeline", "params.yaml": "pipeline", "README.md": "docs", PINNED: "dependencies"}
FOLDERS = ("flows", "tests", "docs", "recipes", "benchmarks")
MOST_FILES = 4  # of code that changed, by name
UNEXPLAINED = "nothing that it depends on differs, but what it made does: another kind of machine, or chance"


def changes_between(base: Revision, head: Revision, examples: int) -> Changes:
    """Compare two revisions; what cannot be compared is a line of `missing`.

    Args:
        base: the older one.
        head: the newer one.
        examples: rows listed of each kind of change in the data.
    """
    missing: list[str] = []
    try:
        files = changed_files(base, head)
    except GitFailed as error:
        files = ()
        missing.append(f"files of the two commits cannot be compared: {error}")
    return Changes(
        param_changes(base, head, missing),
        tuple(_stage_changes(base, head, files, missing)),
        files,
        tuple(_version_changes(base, head)),
        row_changes(base, head, examples, missing),
        validation_changes(base, head, missing),
        tuple(missing),
    )


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def param_changes(base: Revision, head: Revision, missing: list[str]) -> tuple[ParamChange, ...]:
    """Return the settings that differ, with defaults unless the code here does not know one of both files."""
    typed = [typed_params(revision) for revision in (base, head)]
    missing += [
        f"params.yaml of {revision.name} is not what the code here reads: settings are compared without defaults"
        for revision, params in zip((base, head), typed, strict=True)
        if params is None
    ]
    old, new = map(_plain, typed) if all(typed) else (base.data, head.data)
    lines = doc_lines()
    return tuple(
        ParamChange(key, _redacted(before), _redacted(now), doc_line(key, lines))
        for key, before, now in differing(old, new)
    )


def _redacted(value: str | None) -> str | None:
    return None if value is None else redacted(value)


def _plain(params: Params | None) -> dict[str, Any]:
    return params.model_dump(mode="json", by_alias=True) if params else {}


# ── code ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def changed_files(base: Revision, head: Revision) -> tuple[FileChange, ...]:
    """Return the files that differ, by part of the project; one that moved was removed, and another one added.

    Raises:
        GitFailed: if Git does not have both commits.
    """
    options = ("--numstat", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color")
    printed = git(head.folder, "diff", *options, "--end-of-options", base.commit, head.commit, "--")
    found = [_file_change(*line.split("\t", 2)) for line in printed.split("\0") if line]
    return tuple(sorted(found, key=lambda file: (file.part == GENERATED, file.part, file.path)))


def part_of(path: str) -> str:
    """Return the part of the project that a file belongs to: `stages/clean`, `flows`, `pipeline`, `other`."""
    first, *rest = PurePosixPath(path).parts
    if path in GENERATED_FILES or first == "reports":
        return GENERATED
    if first == "stages" and len(rest) > 1:
        return f"stages/{rest[0]}"
    return first if rest and first in ("stages", *FOLDERS) else PARTS.get(path, "other")


def _file_change(added: str, removed: str, path: str) -> FileChange:
    """Read Git's `added⇥removed⇥path`; a binary file has `-` for both counts."""
    plain = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    counts = (None if count == "-" else int(count) for count in (added, removed))
    return FileChange(part_of(plain), plain, *counts)


# ── stages ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _stage_changes(
    base: Revision, head: Revision, files: Sequence[FileChange], missing: list[str]
) -> Iterator[StageChange]:
    """Yield what became of each stage, by what both `dvc.lock` say; in the head's order, removed ones last."""
    for name in (*head.graph, *(name for name in base.graph if name not in head.graph)):
        if name not in head.graph or name not in base.graph:
            yield StageChange(name, "new" if name in head.graph else "removed")
        elif without := [revision.name for revision in (base, head) if name not in revision.lock]:
            missing.append(f"stage {name}: there is no record of it in dvc.lock of {' and of '.join(without)}")
        else:
            outs = tuple(path for path, _, _ in _other_hashes(name, "outs", base, head))
            reasons = [redacted(str(reason)) for reason in _reasons(name, base, head, files)]
            reasons = reasons or ([UNEXPLAINED] if outs else [])
            kind: Literal["ran again", "same"] = "ran again" if reasons else "same"
            yield StageChange(name, kind, tuple(reasons), outs)


def _reasons(name: str, base: Revision, head: Revision, files: Sequence[FileChange]) -> Iterator[Change]:
    """Yield what differs among the things that a stage depends on, in the words of a plan."""
    old, new = (str(revision.lock[name].get("cmd", "")) for revision in (base, head))
    if old != new:
        yield Change("command", how=f"{old} → {new}")
    yield from params_between(_params(base.lock[name]), _params(head.lock[name]))
    for path, before, now in _other_hashes(name, "deps", base, head):
        code = PurePosixPath(path).parts[0] == CODE
        how = "is read now" if before is None else "is not read any more" if now is None else ""
        yield Change("code" if code else "data", path, how or (_files(path, files) if code else _maker(path, head)))


def _other_hashes(
    name: str, kind: Literal["deps", "outs"], base: Revision, head: Revision
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield path and both hashes of each dependency or out whose bytes differ."""
    old, new = base.hashes(name, kind), head.hashes(name, kind)
    for path in dict.fromkeys([*new, *old]):
        if old.get(path) != new.get(path):
            yield path, old.get(path), new.get(path)


def _params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params that a stage ran with, whichever files they were read from."""
    return {key: value for section in (entry.get("params") or {}).values() for key, value in (section or {}).items()}


def _files(folder: str, files: Iterable[FileChange]) -> str:
    paths = (PurePosixPath(file.path) for file in files)
    names = sorted(str(path.relative_to(folder)) for path in paths if PurePosixPath(folder) in path.parents)
    return f"({listed(names, MOST_FILES)})" if names else "changed"


def _maker(path: str, head: Revision) -> str:
    places = {PurePosixPath(path), *PurePosixPath(path).parents}
    return next(
        (f"(of {node.name})" for node in head.graph.values() if places & set(map(PurePosixPath, node.outs))), "changed"
    )


# ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def other_versions(folder: Path) -> list[str]:
    """Return the packages that are installed here in another version than a project pins, with both versions."""
    here = {name: installed(name) for name in pins(folder)}  # packages that only tests need may not be installed
    return [f"{name} {pin} (here {here[name]})" for name, pin in pins(folder).items() if here[name] not in (None, pin)]


def pins(folder: Path) -> dict[str, str]:
    """Return the version of each package in a project's constraints.txt, by normalized name (PEP 503)."""
    file, found = folder / PINNED, {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        try:
            pin = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:
            continue  # a comment, an option
        found[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    return dict(sorted(found.items()))


def installed(package: str) -> str | None:
    """Return the version that is installed here, without the build that follows a `+`."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


def _version_changes(base: Revision, head: Revision) -> Iterator[VersionChange]:
    old, new = pins(base.folder), pins(head.folder)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield VersionChange(name, old.get(name), new.get(name), installed(name))
