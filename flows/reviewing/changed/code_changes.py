"""Files that differ between two commits, by part of the project, in Git's count of lines."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from flows.git import git
from flows.reviewing.findings import CodeChange
from flows.reviewing.revision import Revision

FileChange = tuple[str, int | None, int | None]  # path, lines added, lines removed; None for a binary file

GENERATED = "generated"  # what programs write; listed last, as nobody reads it line by line
GENERATED_FILES = ("dvc.lock", "params.schema.json", "docs/params.md")
PARTS = {  # of files at the top
    "dvc.yaml": "pipeline",
    "params.yaml": "pipeline",
    "README.md": "docs",
    "constraints.txt": "dependencies",
    "requirements.txt": "dependencies",
    "requirements-dev.txt": "dependencies",
}
FOLDERS = ("flows", "tests", "docs", "recipes", "benchmarks")


def changed_files(base: Revision, head: Revision) -> list[FileChange]:
    """Return the files that differ between the two commits; one that moved was removed, and another one added.

    Raises:
        GitFailed: if Git does not have both commits.
    """
    options = ("--numstat", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color")
    printed = git(head.folder, "diff", *options, "--end-of-options", base.commit, head.commit, "--")
    return [_counted(line) for line in printed.split("\0") if line]


def code_changes(files: Sequence[FileChange]) -> tuple[CodeChange, ...]:
    """Return changed files by part of the project, the part with most lines first."""
    parts: dict[str, list[FileChange]] = {}
    for file in sorted(files):
        parts.setdefault(part_of(file[0]), []).append(file)
    order = sorted(parts, key=lambda part: (part == GENERATED, -sum(map(_lines, parts[part])), part))
    return tuple(CodeChange(part, tuple(parts[part])) for part in order)


def part_of(path: str) -> str:
    """Return the part of the project that a file belongs to."""
    first, *rest = PurePosixPath(path).parts
    if path in GENERATED_FILES or first == "reports":
        return GENERATED
    if first == "stages" and len(rest) > 1:
        return f"stages/{rest[0]}"
    return first if rest and first in ("stages", *FOLDERS) else PARTS.get(path, "other")


def _lines(file: FileChange) -> int:
    return (file[1] or 0) + (file[2] or 0)


def _counted(line: str) -> FileChange:
    """Read `added⇥removed⇥path`; a binary file has `-` for both counts."""
    added, removed, path = line.split("\t", 2)
    plain = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return plain, None if added == "-" else int(added), None if removed == "-" else int(removed)
