"""Every out of a rebuild compared with what `dvc.lock` has recorded."""

from collections.abc import Mapping
from dataclasses import replace

from flows.reviewing.file_differences import difference
from flows.reviewing.findings import OutCheck, Rebuild
from flows.reviewing.revision import Revision
from flows.reviewing.tolerance import Environments, Tolerance, tolerance_of
from stages.common.graph import Node, upstream_of
from stages.common.tracking.registry import STAMP

MODEL = "models/finetuned"


def compare_outs(recorded: Revision, rebuilt: Revision, environments: Environments, min_agreement: float) -> Rebuild:
    """Compare every out of a rebuild with the recorded one.

    Args:
        recorded: the revision as its commit has it.
        rebuilt: the same, made again from nothing.
        environments: where each was trained.
        min_agreement: least share of test rows with the same prediction for other bytes of a model to count as equal.
    """
    trained = trained_stages(rebuilt.graph)
    outs, tolerance = [], None
    for stage in dict.fromkeys([*rebuilt.graph, *recorded.lock]):
        old, new = recorded.hashes(stage, "outs"), rebuilt.hashes(stage, "outs")
        for path in sorted({*old, *new}):
            if path not in old or path not in new:
                outs.append(
                    OutCheck(stage, path, "missing", f"the {'rebuild' if path in old else 'record'} has no such out")
                )
            elif old[path] == new[path]:
                outs.append(OutCheck(stage, path, "identical"))
            else:
                if stage in trained and tolerance is None:
                    tolerance = tolerance_of(recorded, rebuilt, environments, min_agreement)
                outs.append(_other_bytes(recorded, rebuilt, stage, path, tolerance if stage in trained else None))
    return _summed_up(outs, environments, tolerance)


def trained_stages(graph: Mapping[str, Node]) -> frozenset[str]:
    """Return the stage that writes the trained model, and all that need it: bytes may differ there alone."""
    trainer = next((name for name, node in graph.items() if MODEL in node.outs), None)
    return frozenset(name for name, node in graph.items() if name == trainer or trainer in upstream_of(node, graph))


def _other_bytes(recorded: Revision, rebuilt: Revision, stage: str, path: str, tolerance: Tolerance | None) -> OutCheck:
    equal = tolerance is not None and not tolerance.against
    old = recorded.folder / path
    if path == str(STAMP):  # of the registry of one machine: neither Git nor DVC's cache keeps it
        how = "it names another model"
    else:
        how = difference(old, rebuilt.folder / path) if old.exists() else "the recorded file is not here to compare"
    return OutCheck(stage, path, "equal" if equal else "different", how or "dvc.lock names other bytes than are here")


def _summed_up(outs: list[OutCheck], environments: Environments, tolerance: Tolerance | None) -> Rebuild:
    bad = [out for out in outs if out.verdict in ("different", "missing")]
    apart = any(out.verdict == "equal" for out in outs)
    found = Rebuild(
        "different" if bad else "equal" if apart else "identical",
        outs=tuple(outs),
        tolerance=tolerance.sentence if tolerance else "",
        environment=environments.changes,
        environment_known=environments.known,
    )
    if not bad:
        return found
    of_first = [out for out in bad if out.stage == bad[0].stage]
    worst = next((out for out in of_first if out.path == MODEL), of_first[0])
    against = f"; {tolerance.against}" if tolerance and tolerance.against and worst.path == MODEL else ""
    return replace(found, first=worst.stage, how=f"{worst.path}: {worst.how}{against}")
