"""What a reviewer should know besides the verdict: one sentence each, the most serious first."""

import re
from collections.abc import Iterator

from flows.reviewing.findings import Figure, Gain, ParamChange, Review
from flows.reviewing.pages.score import score_of
from flows.reviewing.pages.wording import HOW, Line, counted, few, grown, interval, number, quoted, unquoted

SURE = 0.9  # confidence from which a broken row is one that the model is sure of
ECE = (0.01, 1.25)  # calibration is clearly worse by more than this, and to more than this many times
LEAST_ROWS = 200  # of which a calibration error means something
SIZE, SPEED = 1.1, 1.2  # times as large, as slow
SIZES, TIMES = ("B", "KiB", "MiB", "GiB", "bytes"), ("ms", "s")
NOTES = 12  # lines that other parts of the review wrote
GATES = "register.gates."
AT_LEAST = ("minimum", "behaviour")  # limits that a model has to reach; of the others, the most that it may have
MEASURED = ("evaluate.behaviour", "evaluate.slices", "evaluate.bootstrap", "evaluate.baselines")


def risks_of(review: Review) -> tuple[Line, ...]:
    """Return the risks of a review: of those that are bad and of the others, in the order of this page."""
    parts = (_conflict, _record, _gates, _parts, _validation, _rows, _sure, _figures, _shared, _machine, _loose)
    found = [line for part in parts for line in part(review)]
    return tuple(sorted(found, key=lambda line: line.tone != "bad"))


def _conflict(review: Review) -> Iterator[Line]:
    conflict = review.conflict
    if conflict is None:
        return
    made = [path for path in conflict.files if path == "dvc.lock" or path.startswith("reports/")]
    other = [quoted(path) for path in conflict.files if path not in made]
    base = quoted(review.asked_base)
    if other:
        yield Line("bad", f"Conflicts with {base} in {counted(len(other), 'file')}, to be solved by hand: {few(other)}")
    if conflict.lock and review.rebuild.verdict == "unrecorded" and not review.head.stale:
        take = f"`git checkout {unquoted(review.asked_base, 100)} -- dvc.lock`"
        yield Line("bad", f"dvc.lock holds the marks of a merge: {take}, {_again()}")
    elif made:
        reports = any(path != "dvc.lock" for path in made)
        what = " and ".join([*(["dvc.lock"] if conflict.lock else []), *(["reports/"] if reports else [])])
        paths = " ".join([*(["dvc.lock"] if conflict.lock else []), *(["reports"] if reports else [])])
        take = f"merge {base}, take one side whole (`git checkout --theirs {paths}`)"
        yield Line(
            "bad", f"{what} conflict with {base}: {take}, {_again()}".replace("dvc.lock conflict", "dvc.lock conflicts")
        )


def _again() -> str:
    return "`make run` (what that side has run already is not run again), then commit"


def _record(review: Review) -> Iterator[Line]:
    """What the record is worth: files that are not its own, stages that it is not of."""
    if review.rebuild.verdict == "tampered":
        kept = [quoted(out.path) for out in review.rebuild.outs if out.verdict in ("different", "missing")]
        yield Line("bad", f"What the commit or DVC's cache keeps is not what dvc.lock says: {few(kept) or 'see below'}")
    stale = review.head.stale
    if stale and review.head.results != "none":
        yield Line("bad", f"dvc.lock is not of this code, params and data: {_stages(stale)}; `make run`, then commit")
    if review.base is not None and review.base.stale:
        yield Line("warn", f"The base's dvc.lock is not of its own code, params and data: {_stages(review.base.stale)}")
    if review.base is not None and review.base.results == "run":
        data = "" if review.base.own_data else ", of the data that data/inbox/ holds here"
        yield Line("warn", f"The base's results were made by this review, as the base has none that hold{data}")


def _stages(stale: object) -> str:
    told = [f"{quoted(name)} ({quoted(why)})" if why else quoted(name) for name, why in dict(stale).items()]  # type: ignore[call-overload]
    return few(told, 3)


def _gates(review: Review) -> Iterator[Line]:
    params = review.changes.params if review.changes else ()
    gates = [change for change in params if change.key.startswith(GATES)]
    looser = [_change(change, GATES) for change in gates if _loosened(change)]
    other = [_change(change, GATES) for change in gates if not _loosened(change)]
    if looser:
        yield Line("bad", f"The gates themselves were lowered: {few(looser, 3)}")
    if other:
        yield Line("warn", f"The gates themselves changed: {few(other, 3)}")
    measured = [_change(change) for change in params if change.key.startswith(MEASURED)]
    if measured:
        yield Line("warn", f"How the model is measured changed: {few(measured, 3)}")
    judged = [_change(change) for change in params if change.key == "review.min_agreement"]
    if judged:
        yield Line("warn", f"What counts as reproduced changed (the stricter one was used): {few(judged)}")


def _change(change: ParamChange, prefix: str = "") -> str:
    old, new = ("none" if value is None else quoted(value, 40) for value in (change.old, change.new))
    return f"{quoted(change.key.removeprefix(prefix))} {old} → {new}"


def _loosened(change: ParamChange) -> bool:
    """Whether a gate lets more models pass than before, or is gone; where that cannot be told, it is not said."""
    key, old, new = change.key.removeprefix(GATES), change.old, change.new
    gone = new is None or new.strip() in ("null", "None", "")
    none_before = old is None or old.strip() in ("null", "None", "")
    if gone or none_before:
        return gone and not none_before and not key.endswith("allowed_drop")
    assert old is not None and new is not None
    if key.startswith("beat_baselines"):
        return bool(set(re.findall(r"\w+", old)) - set(re.findall(r"\w+", new)))
    if key in ("beat_significantly", "champion.significant"):
        return (old.lower(), new.lower()) == ("true", "false")
    try:
        before, now = float(old), float(new)
    except ValueError:
        return False
    return now < before if key.startswith(AT_LEAST) or key == "slices.minimum" else now > before


def _parts(review: Review) -> Iterator[Line]:
    """Classes and slices that got worse under a whole that did not."""
    effect = review.effect
    if effect is None:
        return
    whole = score_of(review, effect)
    if whole is not None and whole.trend == "worse":
        return
    worse = [("class", gain) for gain in effect.classes if gain.trend == "worse"]
    worse += [("slice", gain) for gain in effect.slices if gain.trend == "worse"]
    if worse:
        told = [f"{kind} {quoted(gain.name)} {interval(gain)}" for kind, gain in sorted(worse, key=_loss)]
        yield Line("bad", f"Worse in part, though not as a whole: {few(told, 3)}")


def _loss(found: tuple[str, Gain]) -> float:
    return found[1].gain


def _validation(review: Review) -> Iterator[Line]:
    changes = review.changes
    failing = [quoted(one.table) for one in (changes.validation if changes else ()) if one.now is False]
    if failing:
        yield Line("bad", f"Tables that fail their contract: {few(failing)}")


def _rows(review: Review) -> Iterator[Line]:
    """What makes the test rows others, and the scores those of fewer rows."""
    params = review.changes.params if review.changes else ()
    split = [_change(change) for change in params if change.key == "seed" or change.key.startswith("clean.split")]
    if split:
        yield Line("warn", f"What decides on the splits changed: {few(split, 3)}")
    effect = review.effect
    if effect and effect.rows and (effect.only_base or effect.only_head or effect.relabelled):
        rows = f"{effect.only_base:,} only in the base, {effect.only_head:,} only in the head"
        rows += f", {effect.relabelled:,} relabelled" if effect.relabelled else ""
        yield Line("warn", f"The test rows differ: {rows}; scores are on the {effect.rows:,} that both share")


def _sure(review: Review) -> Iterator[Line]:
    if review.effect is None:
        return
    broken = review.effect.broken
    sure = sum(flip.now_confidence >= SURE for flip in broken.examples)  # the surest come first
    if sure:
        least = "At least " if sure == len(broken.examples) < broken.count else ""
        yield Line(
            "warn", f"{least}{counted(sure, 'row')} of {broken.count:,} broken with a confidence of {SURE:g} or more"
        )


def _figures(review: Review) -> Iterator[Line]:
    effect = review.effect
    if effect is None:
        return
    same_rows = not (effect.only_base or effect.only_head or effect.relabelled)
    for figure in effect.calibration if same_rows and effect.rows >= LEAST_ROWS else ():
        if figure.better == "lower" and _times(figure, ECE[1]) and (figure.head or 0) - (figure.base or 0) > ECE[0]:
            yield Line("warn", f"Calibration is clearly worse: {_figure(figure)}")
            break  # the others say the same of the same rows
    sizes = [figure for figure in effect.costs if figure.unit not in TIMES]
    alike = all(figure.base == figure.head for figure in sizes)  # then a difference in time is another busy moment
    for figure in sizes if alike else effect.costs:
        if figure.better != "lower":
            continue
        if figure.unit in SIZES and _times(figure, SIZE):
            yield Line("warn", f"Larger: {_figure(figure)}")
        elif figure.unit not in SIZES and _times(figure, SPEED):
            yield Line("warn", f"{'Slower' if figure.unit in TIMES else 'Costs more'}: {_figure(figure)}")


def _times(figure: Figure, most: float) -> bool:
    return figure.base is not None and figure.head is not None and figure.head > most * figure.base


def _figure(figure: Figure) -> str:
    values = f"{number(figure.base, figure.unit)} → {number(figure.head, figure.unit)}"
    return f"{unquoted(figure.name, 60)} {values} ({grown(figure)})"


def _shared(review: Review) -> Iterator[Line]:
    """What re-runs nothing though it changed."""
    if review.changes is None:
        return
    files = [path for part in review.changes.code if part.part == "stages/common" for path, _, _ in part.files]
    if files:
        again = "where it changes what a stage does, run `dvc repro --force`"
        yield Line(
            "warn", f"stages/common changed ({counted(len(files), 'file')}), which re-runs nothing by itself; {again}"
        )
    other = [
        f"{quoted(one.package)} {quoted(one.new, 30)}, here {quoted(one.here or 'not installed', 30)}"
        for one in review.changes.versions
        if one.new is not None and one.here != one.new
    ]
    if other and not review.rebuild.venv:
        ran = "nothing ran with what it pins now (`make review ARGS=--venv` does)"
        yield Line("bad", f"constraints.txt changed, and {ran}: {few(other, 3)}")


def _machine(review: Review) -> Iterator[Line]:
    rebuild = review.rebuild
    if rebuild.verdict in ("left out", "unrecorded"):
        return
    other = [f"{quoted(one.name)} {quoted(one.recorded, 40)} → {quoted(one.here, 40)}" for one in rebuild.environment]
    if other:
        yield Line("warn", f"Rebuilt in another environment than it was recorded in: {few(other, 3)}")
    if not rebuild.environment_known and rebuild.verdict != "identical":
        yield Line("warn", "Which hardware the recorded model was trained on is not known")


def _loose(review: Review) -> Iterator[Line]:
    """What is no part of the commit, or not held fast by it; and what nobody could look at."""
    unpinned = _unpinned(review)
    if unpinned:
        yield Line("warn", f"Sources without a pin, which may hold something else tomorrow: {few(unpinned, 3)}")
    if review.behind:
        lacks = counted(review.behind, "commit")
        yield Line("warn", f"The head lacks {lacks} of {quoted(review.asked_base)}, no part of this review")
    if review.uncommitted:
        files = few([quoted(path) for path in review.uncommitted], 3)
        yield Line("warn", f"Not committed, so no part of this review: {files}")
    changes, effect = review.changes, review.effect
    missing = [unquoted(line) for line in (*(changes.missing if changes else ()), *(effect.missing if effect else ()))]
    if missing:
        yield Line("warn", f"Could not be compared: {few(missing, 2)}")
    for note in review.notes[:NOTES]:
        yield Line("warn", unquoted(note, HOW))
    if len(review.notes) > NOTES:
        yield Line("warn", f"{len(review.notes) - NOTES:,} more notes, which are not listed")


def _unpinned(review: Review) -> list[str]:
    from pydantic import ValidationError

    from stages.common.params import IngestParams

    try:
        return [quoted(origin) for origin in IngestParams.model_validate(review.head.data.get("ingest")).unpinned]
    except ValidationError:  # params of another version of the project: the pipeline itself will say so
        return []
