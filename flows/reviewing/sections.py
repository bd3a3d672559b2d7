"""What the pages of a review show: sections of blocks, most of them tables, out of all that it found."""

from collections.abc import Iterator, Sequence
from shlex import quote
from typing import Any, Literal, NamedTuple

from flows.reviewing.drawings import chart, confusion_difference, intervals
from flows.reviewing.findings import ChangedRows, Changes, Effect, Gain, Rebuild, Review
from flows.reviewing.verdict import confidence_of, interval, number, quoted
from stages.common.pages.charts import Range
from stages.common.shown import shown

CELL = 6  # lines in a cell
NAME = 40  # characters of a column's name
LONG = 12  # rows from which a table of gains is folded


class Verbatim(str):
    """A text of the data: backticks in it are its own."""

    __slots__ = ()


class Table(NamedTuple):
    """Rows of cells; a cell is a sentence, a text of the data, or a tuple of lines.

    `align` has an `l` or an `r` for each column; `ranges` are intervals, one a row, drawn on an axis of this scale.
    """

    columns: tuple[str, ...]
    align: str
    rows: Sequence[Sequence[Any]]
    ranges: tuple[Range, ...] = ()
    scale: str = ""


class Block(NamedTuple):
    """Part of a section; `folded`: opened with a click."""

    kind: Literal["note", "table", "heat", "charts", "output"]
    value: Any
    title: str = ""
    folded: bool = False


class Section(NamedTuple):
    """Part of a page."""

    anchor: str
    title: str
    blocks: list[Block]


def sections_of(review: Review) -> list[Section]:
    """Return all sections but the verdict."""
    nothing = Block("note", f"There is nothing to compare with. {review.failure}")
    changes = list(_changes(review.changes)) if review.changes else [nothing]
    effect = list(_effect(review.effect, confidence_of(review))) if review.effect else [nothing]
    return [
        Section("changes", "What changed", changes),
        Section("effect", "What it did", [*effect, *_gates(review)]),
        Section("rebuild", "Can it be rebuilt", list(_rebuild(review.rebuild))),
        Section("lineage", "Where it comes from", list(_lineage(review))),
    ]


def _table(title: str, columns: str, rows: Sequence[Sequence[Any]], *, folded: bool = False) -> Iterator[Block]:
    """Yield a table unless it has no rows; columns are parted by `|`, one of numbers begins with `>`."""
    names = columns.split("|")
    align = "".join("r" if name.startswith(">") else "l" for name in names)
    if rows:
        yield Block("table", Table(tuple(name.lstrip(">") for name in names), align, rows), title, folded)


# ── what changed ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _changes(changes: Changes) -> Iterator[Block]:
    other = [one for one in changes.stages if one.kind != "same"]
    if not (changes.params or other or changes.files or changes.versions or changes.data):
        yield Block("note", "Nothing: no setting, no code, no version, no row of the data.")
    params = [(quoted(one.key), _value(one.old), _value(one.new), one.doc) for one in changes.params]
    yield from _table("Params", "setting|old|new|what it is", params)
    stages = [
        (quoted(one.stage), one.kind, _lines(one.reasons), _lines(map(quoted, one.outs)) or "none") for one in other
    ]
    yield from _table("Stages", "stage||why|outs with other bytes", stages)
    if same := [quoted(one.stage) for one in changes.stages if one.kind == "same"]:
        yield Block("note", f"Stages as before: {', '.join(same)}.")
    yield from _code(changes)
    versions = [(quoted(one.package), *map(_value, one[1:])) for one in changes.versions]
    yield from _table("Versions in constraints.txt", "package|old|new|installed here", versions)
    yield from _data(changes)
    states = {True: "passed", False: "failed", None: "no report"}
    checks = [(quoted(one.table), states[one.before], states[one.now], _lines(one.notes)) for one in changes.validation]
    yield from _table("Validation", "table|before|now|what differs", checks)
    yield from (Block("note", f"Not compared: {line}.") for line in changes.missing[:CELL])


def _code(changes: Changes) -> Iterator[Block]:
    parts = []
    for part in dict.fromkeys(file.part for file in changes.files):
        files = [file for file in changes.files if file.part == part]
        parts.append(
            (quoted(part), len(files), sum(one.added or 0 for one in files), sum(one.removed or 0 for one in files))
        )
    yield from _table("Code", "part|>files|>added|>removed", parts)
    listed = [
        (quoted(one.path, 120), *("binary" if count is None else count for count in one[2:])) for one in changes.files
    ]
    yield from _table("Code, file by file", "file|>added|>removed", listed, folded=True)


def _data(changes: Changes) -> Iterator[Block]:
    if not changes.data:
        same = "the same rows in the same splits with the same labels" if changes.data == () else "not compared"
        yield Block("note", f"Data: {same}.")
    for one in changes.data or ():
        columns = tuple(Verbatim(shown(name, NAME)) for name in one.columns)
        table = Table(columns, "l" * len(columns), [[*map(Verbatim, row)] for row in one.rows])
        if one.rows:
            yield Block("table", table, f"Data: {one.title}", folded=not one.title.startswith(("Splits", "Relabelled")))


# ── what it did ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _effect(effect: Effect, confidence: str) -> Iterator[Block]:
    if effect.rows:
        only = f"{effect.only_base:,} only in the base, {effect.only_head:,} only in the head"
        yield Block(
            "note", f"On the {effect.rows:,} test rows that both have ({only}, {effect.relabelled:,} relabelled)."
        )
        means = f"the head's score minus the base's, with {confidence} intervals of the paired bootstrap"
        yield Block("note", f"Gain: {means}; McNemar's p {effect.mcnemar_p:.3g}.")
        yield from _gains("Scores", "score", effect.scores)
        yield from _gains("F1 by class", "class", effect.classes)
        yield from _gains("Accuracy by slice", "slice", effect.slices)
        yield from _rows("Improved", effect.improved)
        yield from _rows("Regressed", effect.regressed)
        if effect.moved:
            yield Block("note", f"{effect.moved:,} more rows are wrong in another way than before.")
        if heat := confusion_difference(effect):
            yield Block("heat", heat, "Confusion: head minus base")
    else:
        yield Block("note", "No row could be compared.")
    if effect.curves or effect.reliability:
        charts = [*map(chart, effect.curves), *(chart(curve, unit=True) for curve in effect.reliability)]
        yield Block("charts", charts, "Curves")
    figures = [(one.name, number(one.base, one.unit), number(one.head, one.unit)) for one in effect.figures]
    yield from _table("Calibration, size and speed", "|>base|>head", figures)
    yield from (Block("note", f"Not compared: {line}.") for line in effect.missing[:CELL])


def _gains(title: str, what: str, gains: Sequence[Gain]) -> Iterator[Block]:
    rows = [
        (quoted(one.name), interval(one), one.trend, f"{number(one.base)} → {number(one.head)}", one.rows)
        for one in gains
    ]
    for block in _table(title, f"{what}|>gain||>base → head|>rows", rows, folded=len(gains) > LONG):
        ranges, scale = intervals(gains)
        yield block._replace(value=block.value._replace(ranges=ranges, scale=scale))


def _rows(title: str, rows: ChangedRows) -> Iterator[Block]:
    cells = [
        (
            tuple(map(Verbatim, filter(None, (row.text, row.text_pair)))),
            quoted(row.label),
            f"{quoted(row.before)} {row.before_confidence:.2f}",
            f"{quoted(row.now)} {row.now_confidence:.2f}",
        )
        for row in rows.examples
    ]
    title = f"{title}: {rows.total:,} rows, by the head's confidence"
    yield from _table(title, "text|label|base|head", cells, folded=True)
    if rows.total and not cells:
        yield Block("note", f"{title}.")


def _gates(review: Review) -> Iterator[Block]:
    states = {True: "passed", False: "failed"}
    rows = [
        (quoted(one.get("gate")), states[one.get("passed") is True], one.get("reason") or "") for one in review.gates
    ]
    yield from _table("Gates", "gate||why", rows)


# ── can it be rebuilt ─────────────────────────────────────────────────────────────────────────────────────────────────
def _rebuild(rebuild: Rebuild) -> Iterator[Block]:
    if rebuild.verdict == "left out":
        yield Block("note", "This was left out, as asked.")
    if rebuild.last_lines:
        yield Block("output", [*map(Verbatim, rebuild.last_lines)], "The last lines of the stage that failed")
    if rebuild.tolerance:
        yield Block("note", f"{rebuild.tolerance}.")
    stages = dict.fromkeys([*rebuild.seconds, *(out.stage for out in rebuild.outs)])
    rows = [
        (quoted(one), f"{rebuild.seconds[one]:.1f} s" if one in rebuild.seconds else "–", _counts(rebuild, one))
        for one in stages
    ]
    yield from _table("Stages", "stage|>took|outs", rows)
    outs = sorted(rebuild.outs, key=lambda out: out.verdict == "identical")
    cells = [(quoted(out.path, 100), out.verdict, out.how) for out in outs]
    yield from _table("Outs compared with dvc.lock", "out||how", cells, folded=rebuild.verdict == "identical")
    yield from _table("The machine", "|recorded|here", [tuple(map(quoted, one)) for one in rebuild.environment])


def _counts(rebuild: Rebuild, stage: str) -> str:
    verdicts = [out.verdict for out in rebuild.outs if out.stage == stage]
    return ", ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts)) or "not compared"


# ── where it comes from ───────────────────────────────────────────────────────────────────────────────────────────────
def _lineage(review: Review) -> Iterator[Block]:
    """Yield where a model comes from, and what to type; hashes stand for commits, so that nothing foreign is typed."""
    lineage, head = review.lineage, review.head.short
    facts = [("commit", lineage.commit), ("its message", lineage.subject), *lineage.data]
    facts += [("base model", lineage.base_model[0]), ("its weights", lineage.base_model[1])]
    facts += [("model", lineage.model), ("MLflow run", lineage.run or "")]
    facts += [("registered as", f"{name} version {version} {alias}") for name, version, alias in lineage.versions]
    yield from _table(
        "Commit, data, base model, run and version", "|", [(what, quoted(one, 300)) for what, one in facts if one]
    )
    if lineage.problem:
        yield Block("note", f"{lineage.problem}.")
    commands = [("the code, its data and models", f"git switch --detach {head} && dvc checkout")]
    commands += [
        ("what made it, and all of it back", f"python -m flows.lineage {quote(f'{name}/{version}')}")
        for name, version, _ in lineage.versions[:3]
    ]
    if review.base is not None:
        pair = f"{review.base.short} {head}"
        commands += [
            ("params and metrics side by side", f"dvc exp diff {pair}"),
            ("curves and confusion over each other", f"dvc plots diff {pair}"),
            ("rows of the data, with their texts", f"python -m flows.compare_data {pair} --texts"),
        ]
    commands.append(("both runs in MLflow: select them, then Compare", "make ui"))
    title = "How to look further, and how to get it back"
    yield from _table(title, "what for|command", [(what, quoted(command, 200)) for what, command in commands])


def _value(value: str | None) -> str:
    return "–" if value is None else quoted(value, 80)


def _lines(lines: Iterator[str] | Sequence[str]) -> tuple[str, ...]:
    whole = tuple(lines)
    return (*whole[:CELL], *((f"{len(whole) - CELL:,} more",) if len(whole) > CELL else ()))
