"""`review.md` and `review.html`: the same sections of notes, tables and charts through two templates.

Foreign texts do nothing there: whatever a template puts out passes through one function per format, which removes
secrets, cuts, and escapes, so no template has to remember it. Texts of rows were masked where they were read.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from flows.reporting.markdown import sentence
from flows.reviewing.findings import ChangedRows, Changes, Effect, Gain, Rebuild, Review
from flows.reviewing.verdict import Verdict, confidence_of, interval, quoted
from stages.common.display import READ, display
from stages.common.pages.charts import Axis, Chart, Range
from stages.common.pages.templates import environment, fitted
from stages.common.redact import redacted

# bytes, and rows of each table where there is room; GitHub takes comments of 65,536 characters
LIMITS = {"review.md.j2": (60_000, 40), "review.html.j2": (1_000_000, 200)}
SENTENCE = 1200  # characters
MARK = "<!-- attune-review -->"  # by which a workflow finds the comment that it wrote before
SIGNS = {"good": Markup("✓"), "warn": Markup("△"), "bad": Markup("✗")}
WORDS = {"better", "worse", "same", "unclear", "passed", "failed", "identical", "equal", "different"}
CELL = 6  # lines in a cell
NAME = 40  # characters of a column's name
LONG = 12  # rows from which a table of gains is folded; cells of the confusion


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


Block = str | Table | tuple[Chart, ...]


def render(review: Review, verdict: Verdict, *, markdown: bool) -> str:
    """Return the comment for a pull request (Markdown), or the page in one file; tables get shorter until it fits."""
    name = "review.md.j2" if markdown else "review.html.j2"
    templates = environment(Path(__file__).parent)
    templates.finalize = lambda value: _written(value, _in_markdown if markdown else _in_html)
    # in a cell of a Markdown table, a number begins no list
    templates.filters["cell"] = lambda value: Markup(re.sub(r"^(\d+)\\", r"\1", _written(value, _in_markdown)))  # noqa: S704
    template, sections = templates.get_template(name), sections_of(review)
    most, rows = LIMITS[name]
    context = {"review": review, "verdict": verdict, "sections": sections, "quoted": quoted, "mark": Markup(MARK)}  # noqa: S704
    text = fitted(lambda listed: template.render(**context, SIGNS=SIGNS, WORDS=WORDS, listed=listed), rows, most)
    return re.sub(r"\n{3,}", "\n\n", text) if markdown else text


def _written(value: Any, escaped: Callable[[str], Markup]) -> Markup:
    """Return a cell or sentence with what stands between backticks as code; of a tuple, each on a line of its own."""
    if isinstance(value, tuple):
        return Markup("<br>").join(escaped(str(entry)) for entry in value)
    return value if isinstance(value, Markup) else escaped(str(value))


@lru_cache(50_000)  # pages are rendered again until they fit
def _in_markdown(text: str) -> Markup:
    return Markup(sentence(text[: SENTENCE * READ]))  # noqa: S704


@lru_cache(50_000)
def _in_html(text: str) -> Markup:
    parts: list[str] = display(redacted(text[: SENTENCE * READ]), SENTENCE, None).split("`")
    parts[1::2] = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    return Markup("").join(map(escape, parts))


# ── sections ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def sections_of(review: Review) -> list[tuple[str, str, list[Block]]]:
    """Return all sections but the verdict, without tables of no rows: anchor, title, and what is in it."""
    nothing: list[Block] = [f"There is nothing to compare with. {review.failure}"]
    effect = _effect(review.effect, confidence_of(review)) if review.effect else nothing
    gates = [
        (quoted(gate.get("gate")), "passed" if gate.get("passed") is True else "failed", gate.get("reason") or "")
        for gate in review.gates
    ]
    sections: list[tuple[str, str, Iterable[Block]]] = [
        ("changes", "What changed", _changes(review.changes) if review.changes else nothing),
        ("effect", "What it did", [*effect, Table("Gates", "gate||why", gates)]),
        ("rebuild", "Can it be rebuilt", _rebuild(review.rebuild)),
        ("lineage", "Where it comes from", _lineage(review)),
    ]
    return [
        (anchor, title, [block for block in blocks if (block.rows if isinstance(block, Table) else block)])
        for anchor, title, blocks in sections
    ]


def _changes(changes: Changes) -> Iterator[Block]:
    other = [stage for stage in changes.stages if stage.kind != "same"]
    same = ", ".join(quoted(stage.stage) for stage in changes.stages if stage.kind == "same")
    if not (changes.params or other or changes.files or changes.versions or changes.data):
        yield "Nothing: no setting, no code, no version, no row of the data."
    params = [(quoted(key), _value(old), _value(new), doc) for key, old, new, doc in changes.params]
    yield Table("Params", "setting|old|new|what it is", params)
    stages = [(quoted(name), kind, _lines(reasons), _lines(map(quoted, outs))) for name, kind, reasons, outs in other]
    yield Table("Stages", "stage||why|outs with other bytes", stages)
    yield f"Stages as before: {same}." if same else ""
    parts = []
    for part in dict.fromkeys(file.part for file in changes.files):
        files = [file for file in changes.files if file.part == part]
        added, removed = (sum(getattr(file, kind) or 0 for file in files) for kind in ("added", "removed"))
        parts.append((quoted(part), _lines(quoted(file.path, 120) for file in files), added, removed))
    yield Table("Code", "part|files|>added|>removed", parts)
    versions = [(quoted(package), *map(_value, pins)) for package, *pins in changes.versions]
    yield Table("Versions in constraints.txt", "package|old|new", versions)
    yield "Data: the same rows in the same splits with the same labels." if changes.data == () else ""
    for listing in changes.data or ():
        columns = "|".join(display(name, NAME, None).replace("|", "¦") for name in listing.columns)
        rows = [[quoted(cell, 200) for cell in row] for row in listing.rows]
        folded = not listing.title.startswith(("Splits", "Relabelled"))
        yield Table(f"Data: {listing.title}", columns, rows, folded)


def _effect(effect: Effect, confidence: str) -> Iterator[Block]:
    only = f"{effect.only_base:,} only in the base, {effect.only_head:,} only in the head"
    yield f"On the {effect.rows:,} test rows that both have ({only}, {effect.relabelled:,} relabelled)."
    if effect.rows:
        gain = f"how much better the head's score is, with {confidence} intervals of the paired bootstrap"
        yield f"Gain: {gain}; McNemar's p {effect.mcnemar_p:.3g}."
        yield _gains("Scores", "score", effect.scores)
        yield _gains("By label", "label", effect.parts)
        yield _gains(f"By slice: {effect.spec.of_slices.title}", "slice", effect.slices)
        yield _rows("Improved", effect.improved)
        yield _rows("Regressed", effect.regressed)
        yield f"{effect.moved:,} more rows are wrong in another way than before." if effect.moved else ""
        pairs = [
            (quoted(label), quoted(prediction), base, head, f"{head - base:+.0f}")
            for label, prediction, base, head in effect.confusion[:LONG]
        ]
        yield Table("Confusion: what changed most", "label|prediction|>base|>head|>difference", pairs)
    yield effect.curves
    numbers = [(name, *("–" if side is None else f"{side:,.10g}" for side in sides)) for name, *sides in effect.figures]
    yield Table("Calibration, each on its own test rows, and size", "|>base|>head", numbers)


def _gains(title: str, what: str, gains: Sequence[Gain]) -> Table:
    rows = [
        (quoted(gain.name), interval(gain), gain.trend, f"{gain.base:.4f} → {gain.head:.4f}", gain.rows)
        for gain in gains
    ]
    ends = [abs(end) for gain in gains for end in (gain.low, gain.gain, gain.high) if math.isfinite(end)]
    scale = 1.1 * max(ends, default=0.0) or 0.01
    ranges = [Axis(-scale, scale).range(gain.low, gain.gain, gain.high) for gain in gains]
    return Table(title, f"{what}|>gain||>base → head|>rows", rows, len(gains) > LONG, ranges, scale)


def _rows(title: str, rows: ChangedRows) -> Table | str:
    cells = [
        (
            tuple(quoted(text, 200) for text in (row.text, row.text_pair) if text),
            quoted(row.label),
            _answer(row.before, row.before_confidence),
            _answer(row.after, row.after_confidence),
        )
        for row in rows.examples
    ]
    ranked = any(row.after_confidence is not None for row in rows.examples)
    title = f"{title}: {rows.total:,} rows" + (", by the head's confidence" if ranked else "")
    return Table(title, "text|label|base|head", cells, folded=True) if cells or not rows.total else f"{title}."


def _answer(prediction: str, confidence: float | None) -> str:
    return quoted(prediction) if confidence is None else f"{quoted(prediction)} {confidence:.2f}"


def _rebuild(rebuild: Rebuild) -> Iterator[Block]:
    yield "This was left out, as asked." if rebuild.verdict == "left out" else ""
    last_lines = [(quoted(text, 300),) for text in rebuild.last_lines]
    yield Table("The last lines of the stage that failed", "output", last_lines)
    yield f"{rebuild.agreement}." if rebuild.agreement else ""
    took = ", ".join(f"{quoted(stage)} {seconds:.1f} s" for stage, seconds in rebuild.seconds.items())
    yield f"It took: {took}." if took else ""
    outs = sorted(rebuild.outs, key=lambda out: out.verdict == "identical")
    rows = [(quoted(out.stage), quoted(out.path, 100), out.verdict, out.how) for out in outs]
    yield Table("Outs compared with dvc.lock", "stage|out||how", rows, folded=rebuild.verdict == "identical")


def _lineage(review: Review) -> Iterator[Block]:
    facts, problem = review.lineage
    rows = [(what, quoted(fact, 300)) for what, fact in facts]
    yield Table("Commit, data, base model, run and version", "|", rows)
    yield f"{problem}." if problem else ""
    yield f"All of it in your checkout: `git switch --detach {review.head.commit[:10]} && .venv/bin/dvc checkout`."


def _value(value: str | None) -> str:
    return "–" if value is None else quoted(value, 80)


def _lines(lines: Iterable[str]) -> tuple[str, ...]:
    whole = tuple(lines)
    return (*whole[:CELL], *((f"{len(whole) - CELL:,} more",) if len(whole) > CELL else ()))
