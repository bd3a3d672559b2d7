"""Section 2 of the comment: what changed."""

from collections.abc import Iterator

from flows.reviewing.findings import (
    Changes,
    CodeChange,
    ParamChange,
    Review,
    StageChange,
    ValidationChange,
    VersionChange,
)
from flows.reviewing.pages.shown_parts import Parts
from flows.reviewing.pages.wording import counted
from flows.told.markdown import folded

LISTINGS = 12  # of the data
OUTS = 4  # of a stage, by name
SHORT = 8  # rows of a table that stands open


def changes_section(review: Review, parts: Parts) -> Iterator[str]:
    """Yield the blocks of the section."""
    changes = review.changes
    if changes is None:
        why = "There is nothing to compare with."
        yield f"{why} {parts.said(review.failure)}" if review.failure else why
        return
    if not (changes.params or changes.code or changes.versions or changes.data or _moved(changes)):
        yield "Nothing: no setting, no code, no version, no row of the data."
    yield from _params(changes, parts)
    yield from _stages(changes, parts)
    yield from _code(changes, parts)
    yield from _versions(changes, parts)
    yield from _data(changes, parts)
    yield from _validation(changes, parts)
    if changes.missing:
        yield "Not compared:\n\n" + parts.lines(changes.missing)


def _moved(changes: Changes) -> bool:
    return any(stage.kind != "same" for stage in changes.stages)


def _maybe_folded(title: str, body: str, rows: int) -> str:
    return folded(title, body) if rows > SHORT else f"**{title}**\n\n{body}"


def _params(changes: Changes, parts: Parts) -> Iterator[str]:
    def row(one: ParamChange) -> tuple[str, ...]:
        return parts.exact(one.key), parts.exact(one.old), parts.exact(one.new), parts.said(one.doc)

    if changes.params:
        body = parts.table(("setting", "old", "new", "what it is"), "llll", changes.params, row, "setting")
        yield _maybe_folded(f"Params: {counted(len(changes.params), 'setting')}", body, len(changes.params))
    else:
        yield "**Params** – no setting changed."


def _stages(changes: Changes, parts: Parts) -> Iterator[str]:
    def row(one: StageChange) -> tuple[str, ...]:
        names = ", ".join(map(parts.exact, one.outs[:OUTS]))
        more = f" and {len(one.outs) - OUTS:,} more" if len(one.outs) > OUTS else ""
        outs = f"{names}{more}" if one.outs else "none" if one.kind == "ran again" else "–"
        return parts.exact(one.stage), one.kind, parts.cell(one.reasons), outs

    told = []
    for kind in ("ran again", "new", "removed", "same"):
        names = [one.stage for one in changes.stages if one.kind == kind]
        more = f" and {len(names) - parts.listed:,} more" if len(names) > parts.listed else ""
        told += [f"{kind}: {', '.join(map(parts.exact, names[: parts.listed]))}{more}"] if names else []
    if told:
        yield f"**Stages** – {'; '.join(told)}."
    other = [one for one in changes.stages if one.kind != "same"]
    if other:
        table = parts.table(("stage", "", "why", "outs with other bytes"), "llll", other, row, "stage")
        yield folded("Why, and what came out otherwise", table)


def _code(changes: Changes, parts: Parts) -> Iterator[str]:
    def file_row(file: tuple[str, int | None, int | None]) -> tuple[str, ...]:
        return parts.exact(file[0], 120), *_count(*file[1:])

    if changes.code:
        files = [file for one in changes.code for file in one.files]
        body = parts.table(
            ("part", "files", "+", "-"), "lrrr", changes.code, lambda one: (parts.exact(one.part), *_lines(one)), "part"
        )
        body += "\n\n" + folded("File by file", parts.table(("file", "+", "-"), "lrr", files, file_row, "file"))
        yield f"**Code: {counted(len(files), 'file')}**\n\n{body}"


def _lines(change: CodeChange) -> tuple[str, str, str]:
    added, removed = (sum(file[at] or 0 for file in change.files) for at in (1, 2))  # type: ignore[misc]
    return f"{len(change.files):,}", f"{added:,}", f"{removed:,}"


def _count(added: int | None, removed: int | None) -> tuple[str, str]:
    return ("binary", "binary") if added is None or removed is None else (f"{added:,}", f"{removed:,}")


def _versions(changes: Changes, parts: Parts) -> Iterator[str]:
    def row(one: VersionChange) -> tuple[str, ...]:
        return parts.exact(one.package), parts.exact(one.old), parts.exact(one.new), parts.exact(one.here)

    if changes.versions:
        body = parts.table(("package", "old", "new", "installed here"), "llll", changes.versions, row, "package")
        yield _maybe_folded(f"Versions in constraints.txt: {len(changes.versions):,}", body, len(changes.versions))


def _data(changes: Changes, parts: Parts) -> Iterator[str]:
    def row(cells: list[str]) -> list[str]:
        return [parts.name(cell, 100) for cell in cells]

    if changes.data is None:
        yield "**Data** – not compared: the tables of one side are not there."
        return
    if not changes.data:
        yield "**Data** – the same rows in the same splits with the same labels."
        return
    blocks = []
    for one in changes.data[:LISTINGS]:
        head = [parts.name(name) if name.strip() else "" for name in one.columns]
        blocks += [parts.said(one.title), parts.table(head, "l" * len(head), one.rows, row)]
    counts = [one.title for one in changes.data[:LISTINGS] if one.title.rpartition(": ")[2].replace(",", "").isdigit()]
    yield "**Data** – " + parts.said("; ".join(counts) or "changed")
    yield folded("Splits, labels, rules and rows", "\n\n".join(filter(None, blocks)))


def _validation(changes: Changes, parts: Parts) -> Iterator[str]:
    states = {True: "passed", False: "**failed**", None: "no report"}

    def row(one: ValidationChange) -> tuple[str, ...]:
        return parts.exact(one.table), states[one.before], states[one.now], parts.cell(one.notes)

    other = [one for one in changes.validation if one.before != one.now or one.notes or one.now is False]
    if other:
        body = parts.table(("table", "before", "now", "what differs"), "llll", other, row, "table")
        yield _maybe_folded(f"Validation: {counted(len(other), 'table')} with a difference", body, len(other))
    elif changes.validation:
        yield f"**Validation** – {counted(len(changes.validation), 'table')} as before, all passed."
