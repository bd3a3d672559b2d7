"""What the pages of a review show: sections of notes, tables and charts, out of all that it found."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from flows.reviewing.findings import ChangedRows, Changes, Curve, Effect, Gain, Rebuild, Review
from flows.reviewing.verdict import confidence_of, interval, quoted
from stages.common.display import display
from stages.common.pages.charts import Axis, Line, Range, line

CELL = 6  # lines in a cell
NAME = 40  # characters of a column's name
LONG = 12  # rows from which a table of gains is folded; cells of the confusion; points that are drawn as dots, too
POINTS = 400  # of a line; more cannot be told apart


class Table(NamedTuple):
    """Rows of cells; a cell is a sentence, a number, or a tuple of lines.

    `columns` are parted by `|`, one of numbers begins with `>`. `folded`: opened with a click. `ranges` are intervals,
    one a row, drawn on an axis from -`scale` to `scale`.
    """

    title: str
    columns: str
    rows: Sequence[Sequence[Any]]
    folded: bool = False
    ranges: Sequence[Range] = ()
    scale: float = 0.0


class Chart(NamedTuple):
    """Two lines over each other, with what stands at both ends of both axes."""

    name: str
    x: str
    lines: list[Line]
    across: list[str]
    up: list[str]


Block = str | Table | list[Chart]


def sections_of(review: Review) -> list[tuple[str, str, list[Block]]]:
    """Return all sections but the verdict, without tables of no rows: anchor, title, and what is in it."""
    nothing: list[Block] = [f"There is nothing to compare with. {review.failure}"]
    confidence = confidence_of(review)
    sections: list[tuple[str, str, Iterable[Block]]] = [
        ("changes", "What changed", _changes(review.changes) if review.changes else nothing),
        (
            "effect",
            "What it did",
            [*(_effect(review.effect, confidence) if review.effect else nothing), _gates(review)],
        ),
        ("rebuild", "Can it be rebuilt", _rebuild(review.rebuild)),
        ("lineage", "Where it comes from", _lineage(review)),
    ]
    return [
        (anchor, title, [block for block in blocks if (block.rows if isinstance(block, Table) else block)])
        for anchor, title, blocks in sections
    ]


def _changes(changes: Changes) -> Iterator[Block]:
    other = [one for one in changes.stages if one.kind != "same"]
    same = ", ".join(quoted(one.stage) for one in changes.stages if one.kind == "same")
    if not (changes.params or other or changes.files or changes.versions or changes.data):
        yield "Nothing: no setting, no code, no version, no row of the data."
    params = [(quoted(one.key), _value(one.old), _value(one.new), one.doc) for one in changes.params]
    yield Table("Params", "setting|old|new|what it is", params)
    stages = [(quoted(one.stage), one.kind, _lines(one.reasons), _lines(map(quoted, one.outs))) for one in other]
    yield Table("Stages", "stage||why|outs with other bytes", stages)
    yield f"Stages as before: {same}." if same else ""
    parts = []
    for part in dict.fromkeys(file.part for file in changes.files):
        files = [file for file in changes.files if file.part == part]
        added, removed = (
            sum(count or 0 for count in counts) for counts in zip(*(file[2:] for file in files), strict=True)
        )
        parts.append((quoted(part), _lines(quoted(file.path, 120) for file in files), added, removed))
    yield Table("Code", "part|files|>added|>removed", parts)
    versions = [(quoted(one.package), *map(_value, one[1:])) for one in changes.versions]
    yield Table("Versions in constraints.txt", "package|old|new|installed here", versions)
    yield "Data: the same rows in the same splits with the same labels." if changes.data == () else ""
    for one in changes.data or ():
        columns = "|".join(display(name, NAME).replace("|", "¦") for name in one.columns)
        rows = [[quoted(cell, 200) for cell in row] for row in one.rows]
        yield Table(f"Data: {one.title}", columns, rows, not one.title.startswith(("Splits", "Relabelled")))


def _effect(effect: Effect, confidence: str) -> Iterator[Block]:
    only = f"{effect.only_base:,} only in the base, {effect.only_head:,} only in the head"
    yield f"On the {effect.rows:,} test rows that both have ({only}, {effect.relabelled:,} relabelled)."
    if effect.rows:
        gain = f"the head's score minus the base's, with {confidence} intervals of the paired bootstrap"
        yield f"Gain: {gain}; McNemar's p {effect.mcnemar_p:.3g}."
        yield _gains("Scores", "score", effect.scores)
        yield _gains("F1 by class", "class", effect.classes)
        yield _gains("Accuracy by slice", "slice", effect.slices)
        yield _rows("Improved", effect.improved)
        yield _rows("Regressed", effect.regressed)
        yield f"{effect.moved:,} more rows are wrong in another way than before." if effect.moved else ""
        yield _confusion(effect)
    yield [chart(curve) for curve in effect.curves]
    numbers = [(one.name, _number(one.base, one.unit), _number(one.head, one.unit)) for one in effect.figures]
    yield Table("Calibration, each on its own test rows, and size", "|>base|>head", numbers)


def _gains(title: str, what: str, gains: Sequence[Gain]) -> Table:
    rows = [(quoted(one.name), interval(one), one.trend, f"{one.base:.4f} → {one.head:.4f}", one.rows) for one in gains]
    ends = [abs(end) for one in gains for end in (one.low, one.gain, one.high) if math.isfinite(end)]
    most = 1.1 * max(ends, default=0.0) or 0.01
    ranges = [Axis(-most, most).range(one.low, one.gain, one.high) for one in gains]
    return Table(title, f"{what}|>gain||>base → head|>rows", rows, len(gains) > LONG, ranges, most)


def _rows(title: str, rows: ChangedRows) -> Table | str:
    cells = [
        (
            tuple(quoted(text, 200) for text in (row.text, row.text_pair) if text),
            quoted(row.label),
            f"{quoted(row.before)} {row.before_confidence:.2f}",
            f"{quoted(row.now)} {row.now_confidence:.2f}",
        )
        for row in rows.examples
    ]
    title = f"{title}: {rows.total:,} rows, by the head's confidence"
    return Table(title, "text|label|base|head", cells, folded=True) if cells or not rows.total else f"{title}."


def _confusion(effect: Effect) -> Table:
    base, head = effect.confusion_base, effect.confusion_head
    changed = sorted(map(tuple, np.argwhere(head != base)), key=lambda cell: (-abs(head[cell] - base[cell]), cell))
    rows = [
        (*(quoted(effect.labels[label]) for label in cell), base[cell], head[cell], f"{head[cell] - base[cell]:+.0f}")
        for cell in changed[:LONG]
    ]
    return Table("Confusion: what changed most", "label|prediction|>base|>head|>difference", rows)


def chart(curve: Curve) -> Chart:
    """Return both sides of a curve on the same axes, from the least to the largest value."""
    axes, marks = [], []
    for values in zip(*curve.base, *curve.head, strict=True):
        low, high = min(values), max(values)
        axes.append(Axis(low, high if high > low else low + (abs(low) or 1)))
        marks.append([f"{axes[-1].start:.4g}", f"{axes[-1].end:.4g}"])
    lines = []
    for name, whole in (("base", curve.base), ("head", curve.head)):
        side = whole[:: math.ceil(len(whole) / POINTS) or 1]
        x, y = ([axis.place(point[at]) for point in side] for at, axis in enumerate(axes))
        lines.append(line(name, name, x, y, dots=len(side) <= LONG))
    return Chart(curve.name, curve.x, lines, *marks)


def _gates(review: Review) -> Table:
    rows = [
        (quoted(one.get("gate")), "passed" if one.get("passed") is True else "failed", one.get("reason") or "")
        for one in review.gates
    ]
    return Table("Gates", "gate||why", rows)


def _rebuild(rebuild: Rebuild) -> Iterator[Block]:
    yield "This was left out, as asked." if rebuild.verdict == "left out" else ""
    last = [(quoted(one, 300),) for one in rebuild.last_lines]
    yield Table("The last lines of the stage that failed", "output", last)
    yield f"{rebuild.tolerance}." if rebuild.tolerance else ""
    took = ", ".join(f"{quoted(stage)} {seconds:.1f} s" for stage, seconds in rebuild.seconds.items())
    yield f"It took: {took}." if took else ""
    outs = sorted(rebuild.outs, key=lambda out: out.verdict == "identical")
    rows = [(quoted(out.stage), quoted(out.path, 100), out.verdict, out.how) for out in outs]
    yield Table("Outs compared with dvc.lock", "stage|out||how", rows, folded=rebuild.verdict == "identical")


def _lineage(review: Review) -> Iterator[Block]:
    lineage = review.lineage
    facts = [("commit", lineage.commit), ("its message", lineage.subject), *lineage.data]
    facts += [("base model", lineage.base_model[0]), ("its weights", lineage.base_model[1])]
    facts += [("model", lineage.model), ("MLflow run", lineage.run or "")]
    facts += [("registered as", f"{name} version {version} {alias}") for name, version, alias in lineage.versions]
    rows = [(what, quoted(one, 300)) for what, one in facts if one]
    yield Table("Commit, data, base model, run and version", "|", rows)
    yield f"{lineage.problem}." if lineage.problem else ""
    yield f"All of it in your checkout: `git switch --detach {review.head.short} && dvc checkout`."


def _number(value: float | None, unit: str) -> str:
    """Return a number with as many digits as it is worth, and its unit."""
    if value is None:
        return "–"
    return f"{value:,.{0 if abs(value) >= 1000 else 1 if unit else 4}f} {unit}".strip()


def _value(value: str | None) -> str:
    return "–" if value is None else quoted(value, 80)


def _lines(lines: Iterable[str]) -> tuple[str, ...]:
    whole = tuple(lines)
    return (*whole[:CELL], *((f"{len(whole) - CELL:,} more",) if len(whole) > CELL else ()))
