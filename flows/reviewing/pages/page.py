"""`review.html`: a review on one page without scripts or network, verdict first."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from flows.reviewing.findings import Changes, Effect, Rebuild, Review
from flows.reviewing.pages.commands import commands_of, lineage_lines
from flows.reviewing.pages.comment import SIGNS
from flows.reviewing.pages.plots import bars, drawing, heat, whiskers
from flows.reviewing.pages.score import percent_of
from flows.reviewing.pages.verdict import Verdict
from flows.reviewing.pages.wording import grown, interval, masked, number, pieces, seconds, trend_of
from stages.common.pages.environment import environment, fitted
from stages.common.redact import redacted
from stages.common.shown import READ, Mask, shown

LIMIT = 1_000_000  # bytes; with shorter lists, until it fits
LISTED = 200  # lines of each list, where there is room: as many as `review.examples` may ask for
EXACT = 300  # characters of what is no data: a setting, a path, a digest
CURVES = 24
LAST = 40  # lines of a stage that failed


def page(review: Review, verdict: Verdict, mask: Mask | None = None) -> str:
    """Return the page, at most LIMIT bytes.

    Args:
        review: what was found.
        verdict: what it comes to.
        mask: replaces personal data in texts and names.
    """
    template = _template(mask)
    return fitted(lambda listed: _page(template, review, verdict, listed), LISTED, LIMIT)


def _template(mask: Mask | None) -> Template:
    """Return the template; whatever it shows has lost its secrets before it is masked."""

    bare = cache(redacted)  # the page is made again until it fits

    @cache
    def clean(text: str) -> str:
        return mask(bare(text)) if mask else bare(text)

    templates = environment(Path(__file__).parent, clean)
    templates.filters["exact"] = lambda text: shown(bare(text[: EXACT * READ]), EXACT)
    templates.filters["pieces"] = lambda sentence, most: pieces(
        masked(shown(bare(sentence[: most * READ]), most), mask)
    )
    templates.filters.update(interval=interval, number=number, grown=grown, trend=trend_of)
    return templates.get_template("review.html.j2")


def _page(template: Template, review: Review, verdict: Verdict, listed: int) -> str:
    rebuild = review.rebuild
    return template.render(
        review=review,
        verdict=verdict,
        changes=_changes(review.changes, listed) if review.changes else None,
        effect=_effect(review.effect, listed) if review.effect else None,
        gates=[
            {
                "gate": str(gate.get("gate", "")),
                "reason": str(gate.get("reason", "")),
                "passed": gate.get("passed") is True,
            }
            for gate in review.gates[:listed]
        ],
        rebuild=rebuild,
        stages=_stages(rebuild, listed),
        last_lines=rebuild.last_lines[-LAST:],
        environment=rebuild.environment[:listed],
        lineage=lineage_lines(review.lineage)[:listed],
        commands=commands_of(review),
        percent=percent_of(review),
        SIGNS=SIGNS,
        listed=listed,
        LISTED=LISTED,
    )


def _changes(changes: Changes, listed: int) -> dict[str, Any]:
    lines = [sum((added or 0) + (removed or 0) for _, added, removed in part.files) for part in changes.code]
    moved = any(stage.kind != "same" for stage in changes.stages)
    return {
        "nothing": not (changes.params or changes.code or changes.versions or changes.data or moved),
        "params": changes.params[:listed],
        "more_params": len(changes.params) - listed,
        "stages": changes.stages[:listed],
        "more_stages": len(changes.stages) - listed,
        "code": [
            {
                "part": part.part,
                "count": len(part.files),
                "files": part.files[:listed],
                "bars": bars(part.files, max(lines)),
            }
            for part in changes.code[: max(listed, 1)]
        ],
        "versions": changes.versions[:listed],
        "more_versions": len(changes.versions) - listed,
        "data": None
        if changes.data is None
        else [
            {
                "title": one.title,
                "columns": one.columns,
                "rows": one.rows[:listed],
                "more": len(one.rows) - listed,
            }
            for one in changes.data
        ],
        "validation": changes.validation[:listed],
        "missing": changes.missing[:listed],
    }


def _effect(effect: Effect, listed: int) -> dict[str, Any]:
    return {
        "found": effect,
        "scores": whiskers(effect.scores, listed),
        "classes": whiskers(effect.classes, min(listed, 60)),
        "slices": whiskers(effect.slices, min(listed, 60)),
        "fixed": effect.fixed.examples[:listed],
        "broken": effect.broken.examples[:listed],
        "heat": heat(effect.labels, effect.confusion_base, effect.confusion_head),
        "curves": [drawing(curve) for curve in effect.curves[: min(listed, CURVES)]],
        "more_curves": len(effect.curves) - min(listed, CURVES),
        "reliability": [drawing(curve, unit=True) for curve in effect.reliability[: min(listed, CURVES)]],
        "missing": effect.missing[:listed],
    }


def _stages(rebuild: Rebuild, listed: int) -> list[dict[str, Any]]:
    """Return the stages in the order of the graph, those open that have something to show."""
    found: Mapping[str, list[Any]] = {
        name: [out for out in rebuild.outs if out.stage == name]
        for name in dict.fromkeys([*(out.stage for out in rebuild.outs), *rebuild.seconds])
    }
    return [
        {
            "name": name,
            "outs": [asdict(out) for out in outs[:listed]],
            "more": len(outs) - listed,
            "counts": list(Counter(out.verdict for out in outs).items()),
            "open": name == rebuild.first or any(out.verdict in ("different", "missing") for out in outs),
            "took": seconds([rebuild.seconds[name]]) if name in rebuild.seconds else "–",
        }
        for name, outs in list(found.items())[: max(listed, 1)]
    ]
