"""Every out of a rebuild compared with `dvc.lock`, and how two files of an out differ, by what they hold.

Trained on other hardware, a model may have other bytes.
"""

import filecmp
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from flows.reporting.reports import spec_of
from flows.reviewing.effect import PREDICTIONS
from flows.reviewing.findings import Machine, OutCheck, Rebuild, RebuildVerdict
from flows.reviewing.revision import Revision
from stages.common.display import display
from stages.common.environment import HARDWARE
from stages.common.pipeline.dvc_status import differing
from stages.common.pipeline.graph import upstream_of
from stages.tasks import load_task
from stages.tracking.provenance import SCORES as METRICS

MODEL = "models/finetuned"
NAME = 80  # characters shown of a name


def compare_outs(
    recorded: Revision, rebuilt: Revision, machines: tuple[Machine, Machine], min_agreement: float
) -> Rebuild:
    """Compare every out of a rebuild with the recorded one; `machines`: where each was trained.

    Other bytes of a model count as equal if at least `min_agreement` of the test rows have the same prediction.
    """
    old, new = machines
    known = "processor" in old and "processor" in new
    other = differing(*machines) if known else ()
    environment = tuple((name, before or "none", after or "none") for name, before, after in other)
    hashes = [
        (stage, path, before.get(path), after.get(path))
        for stage in dict.fromkeys([*rebuilt.graph, *recorded.lock])
        for before, after in [(recorded.hashes(stage, "outs"), rebuilt.hashes(stage, "outs"))]
        for path in sorted({*before, *after})
    ]
    graph = rebuilt.graph
    trainer = next((stage for stage, node in graph.items() if MODEL in node.outs), None)
    # the bytes of the model, and of all that needs it, may differ
    trained = {stage for stage, node in graph.items() if stage == trainer or trainer in upstream_of(node, graph)}
    disagreement, agreement = "", ""
    if any(before and after and before != after for stage, _, before, after in hashes if stage in trained):
        disagreement, agreement = _agreement(recorded, rebuilt, min_agreement)
        agreement += "" if known else "; on which hardware each was trained is not known"
        if known and not any(name in HARDWARE for name, _, _ in environment):
            disagreement = "the hardware is the same, where the same training gives the same bytes"
    outs = []
    for stage, path, before, after in hashes:
        if before == after:
            outs.append(OutCheck(stage, path, "identical"))
        else:
            tolerated = stage in trained and before and after and not disagreement
            how = difference(recorded.folder / path, rebuilt.folder / path)
            outs.append(OutCheck(stage, path, "equal" if tolerated else "different", how))
    verdict: RebuildVerdict = "equal" if any(out.verdict == "equal" for out in outs) else "identical"
    first = how = ""
    if bad := [out for out in outs if out.verdict == "different"]:
        worst = next((out for out in bad if out.stage == bad[0].stage and out.path == MODEL), bad[0])
        why = f"; {disagreement}" if disagreement and worst.path == MODEL else ""
        verdict, first, how = "different", worst.stage, f"{worst.path}: {worst.how}{why}"
    return Rebuild(verdict, first, how, tuple(outs), agreement=agreement, environment=environment)


def _agreement(recorded: Revision, rebuilt: Revision, min_agreement: float) -> tuple[str, str]:
    """Return why two models are not the same but for the machine (nothing: they are), and what was compared."""
    before, after = (revision.table(PREDICTIONS) for revision in (recorded, rebuilt))
    agreeing = rows = 0
    if before is not None and after is not None and sorted(before["id"]) == sorted(after["id"]):
        task = load_task(spec_of(rebuilt.report(METRICS)).name)
        agreeing = int(task.agreeing(before.sort("id"), after.sort("id")).sum())
        rows = len(before)
    facts = [f"{agreeing:,} of {rows:,} predictions are the same"]
    against = [] if rows and agreeing >= min_agreement * rows else [f"only {facts[0]}"]
    old, new = recorded.report(METRICS), rebuilt.report(METRICS)
    for score in spec_of(new).headline:
        name, key = score.title, score.name
        try:
            low, value, high = old[f"{key}_low"], new[key], old[f"{key}_high"]
            inside = low <= value <= high
            facts.append(f"{name} {value:.4f} is {'' if inside else 'not '}within [{low:.4f}, {high:.4f}]")
        except (KeyError, TypeError, ValueError):
            inside = False
            facts.append(f"there is no {name} with an interval to compare")
        against += [] if inside else [facts[-1]]
    least = f"at least {100 * min_agreement:g} % of the test predictions are the same"
    return "; ".join(against), (
        f"Other bytes of a trained model count as equal on other hardware, if {least} and the scores lie within the "
        f"recorded intervals: {', '.join(facts)}"
    )


# ── two files ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def difference(old: Path, new: Path) -> str:
    """Return how two files or folders differ, in a line; nothing if and only if their bytes are the same."""
    if old.is_dir() and new.is_dir():
        names = {path.relative_to(top).as_posix() for top in (old, new) for path in top.rglob("*") if path.is_file()}
        files = [(name, how) for name in sorted(names) if (how := difference(old / name, new / name))]
        more = f" (and {len(files) - 1:,} more files)" if len(files) > 1 else ""
        return f"{display(files[0][0], NAME)}: {files[0][1]}{more}" if files else ""
    if not (old.is_file() and new.is_file()):
        return "only one of the two files is here"
    if filecmp.cmp(old, new, shallow=False):
        return ""
    sizes = f"other bytes ({old.stat().st_size:,} → {new.stat().st_size:,})"
    compare = KINDS.get(new.suffix)
    try:
        return (compare(old, new) if compare else "") or sizes
    except (Exception, pl.exceptions.PanicException):  # of a damaged file, or one of other columns, anything
        return sizes


def _differing_rows(old: Path, new: Path) -> str:
    before, after = (pl.read_parquet(path, use_pyarrow=True) for path in (old, new))
    if before.height != after.height:
        return f"{before.height:,} → {after.height:,} rows"
    other = pl.DataFrame({name: before[name].ne_missing(after[name]) for name in before.columns})
    columns = [name for name in other.columns if other[name].any()]
    rows = other.select(pl.any_horizontal(pl.all())).to_series().arg_true()
    where = f"first row {rows[0] + 1:,}, in {display(', '.join(columns), NAME)}" if columns else ""
    return f"{len(rows):,} of {before.height:,} rows differ, {where}" if columns else ""


def _differing_tensors(old: Path, new: Path) -> str:
    import ml_dtypes  # noqa: F401  # teaches NumPy bfloat16
    from safetensors.numpy import load_file

    before, after = load_file(old), load_file(new)
    largest: dict[str, float] = {}
    for name, tensor in before.items():
        if tensor.tobytes() != after[name].tobytes():
            apart = abs(after[name].astype("float64") - tensor.astype("float64"))
            largest[name] = float(np.nan_to_num(apart, nan=np.inf).max())
    if not largest:
        return ""
    most = max(largest, key=lambda name: largest[name])
    return f"{len(largest):,} of {len(before):,} tensors differ, by up to {largest[most]:.2g} ({display(most, NAME)})"


def _differing_keys(old: Path, new: Path) -> str:
    before, after = (json.loads(path.read_text("utf-8")) for path in (old, new))
    keys = [key for key, _, _ in differing(before, after)]
    more = f" and {len(keys) - 1:,} more" if len(keys) > 1 else ""
    return f"{display(keys[0], NAME) or 'the whole'} differs{more}" if keys else ""


KINDS: dict[str, Callable[[Path, Path], str]] = {
    ".parquet": _differing_rows,
    ".safetensors": _differing_tensors,
    ".json": _differing_keys,
}
