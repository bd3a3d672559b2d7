"""`review.md`: a review as a comment on a pull request, verdict first; it reads well as plain text, too."""

from collections import Counter
from collections.abc import Iterator

from flows.reviewing.findings import EnvironmentChange, OutCheck, Rebuild, Review
from flows.reviewing.pages.commands import commands_of, lineage_lines
from flows.reviewing.pages.comment_changes import changes_section
from flows.reviewing.pages.comment_effect import effect_section
from flows.reviewing.pages.shown_parts import Parts
from flows.reviewing.pages.verdict import Verdict
from flows.reviewing.pages.wording import counted, seconds
from flows.told.markdown import code, fenced, folded
from stages.common.pages.environment import fitted
from stages.common.shown import Mask

LIMIT = 60_000  # bytes; GitHub takes comments of 65,536 characters
LISTED = 40  # rows of a table, where there is room
MARK = "<!-- attune-review -->"  # by which a workflow finds the comment that it wrote before
SIGNS = {"good": "✓", "warn": "△", "bad": "✗"}


def comment(review: Review, verdict: Verdict, mask: Mask | None = None) -> str:
    """Return the comment, at most LIMIT bytes: tables get shorter until it fits.

    Args:
        review: what was found.
        verdict: what it comes to.
        mask: replaces personal data in texts and names.
    """
    return fitted(lambda listed: _comment(review, verdict, Parts(listed, mask)), LISTED, LIMIT)


def _comment(review: Review, verdict: Verdict, parts: Parts) -> str:
    blocks = [
        MARK,
        f"## Review of {code(review.head.name, 80)}: {parts.name(review.head.subject, 100)}",
        _between(review, parts),
        "\n".join(f"- {SIGNS[line.tone]} {_told(line.text, parts)}" for line in verdict.headline),
        *_risks(verdict, parts),
        "### What changed",
        *changes_section(review, parts),
        "### What it did",
        *effect_section(review, parts),
        "### Can it be rebuilt",
        *_rebuilt(review.rebuild, parts),
        "### Where it comes from",
        *_lineage(review, parts),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _between(review: Review, parts: Parts) -> str:
    head = f"Commit {code(review.head.short)}"
    if review.base is None:
        return f"{head}, by itself: {code(review.asked_base, 80)} has no results to hold it against."
    base = f"{code(review.base.short)} ({parts.name(review.base.subject, 100)})"
    return f"{head} against {base}, where it parted from {code(review.asked_base, 80)}."


def _told(sentence: str, parts: Parts) -> str:
    """Return a sentence, bold up to its colon: `Better`, `Not reproduced`; nothing before it is foreign."""
    first, colon, rest = sentence.partition(":")
    return f"**{first}{colon}** {parts.said(rest)}" if rest and "`" not in first else parts.said(sentence)


def _risks(verdict: Verdict, parts: Parts) -> Iterator[str]:
    if verdict.risks:
        lines = "\n".join(f"- {SIGNS[line.tone]} {parts.said(line.text)}" for line in verdict.risks)
        yield f"**Risks**\n\n{lines}"
    else:
        yield "No risks were found."


def _rebuilt(rebuild: Rebuild, parts: Parts) -> Iterator[str]:
    if rebuild.verdict == "left out":
        yield "This was left out, as asked."
        return
    if not (rebuild.seconds or rebuild.outs or rebuild.last_lines):
        yield "There is nothing to hold a rebuild against, or it did not come so far."
    if rebuild.last_lines:
        yield "The last lines of the stage that failed:\n\n" + fenced(rebuild.last_lines[-20:])
    if rebuild.tolerance:
        yield parts.said(f"Equal means: {rebuild.tolerance}")
    stages = list(dict.fromkeys([*(out.stage for out in rebuild.outs), *rebuild.seconds]))
    yield parts.table(("stage", "outs", "took"), "llr", stages, lambda stage: _stage(rebuild, stage, parts), "stage")
    other = [out for out in rebuild.outs if out.verdict != "identical"]
    if other:
        table = parts.table(("stage", "out", "verdict", "how"), "llll", other, lambda out: _out(out, parts), "out")
        yield folded(f"{counted(len(other), 'out')} that {'is' if len(other) == 1 else 'are'} not identical", table)
    if rebuild.environment:
        table = parts.table(
            ("", "recorded", "here"), "lll", rebuild.environment, lambda one: _machine(one, parts), "line"
        )
        yield folded(f"The machine: {counted(len(rebuild.environment), 'difference')}", table)
    elif rebuild.verdict in ("identical", "equal", "different"):
        known = "No difference is known between the machine of the record and this one."
        yield known if rebuild.environment_known else "Which hardware the recorded model was trained on is not known."


def _stage(rebuild: Rebuild, stage: str, parts: Parts) -> tuple[str, ...]:
    counts = Counter(out.verdict for out in rebuild.outs if out.stage == stage)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "–"
    return parts.exact(stage), told, seconds([rebuild.seconds[stage]]) if stage in rebuild.seconds else "–"


def _out(out: OutCheck, parts: Parts) -> tuple[str, ...]:
    return parts.exact(out.stage), parts.exact(out.path, 100), out.verdict, parts.said(out.how) or "–"


def _machine(change: EnvironmentChange, parts: Parts) -> tuple[str, ...]:
    return parts.exact(change.name), parts.exact(change.recorded), parts.exact(change.here)


def _lineage(review: Review, parts: Parts) -> Iterator[str]:
    rows = lineage_lines(review.lineage)
    table = parts.table(("", ""), "ll", rows, lambda row: (parts.exact(row[0]), parts.exact(row[1], 100)), "line")
    yield folded("Commit, data, base model, run and version", table)
    if review.lineage.problem:
        yield parts.said(f"MLflow was not asked: {review.lineage.problem}")
    commands = "\n".join(f"- {what}: {code(command, 200)}" for what, command in commands_of(review))
    yield folded("How to look further, and how to get it back", commands)
