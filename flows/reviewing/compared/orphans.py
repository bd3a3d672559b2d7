"""Results that no stage makes: no rebuild makes them again, so nobody can tell where they come from."""

from pathlib import PurePosixPath

from flows.reviewing.revision import Revision

BELIEVED = (  # what a review shows and judges by
    "data/predictions.parquet",
    "data/clean/train.parquet",
    "data/clean/validation.parquet",
    "data/clean/test.parquet",
    "data/clean/rejected.parquet",
    "data/raw/rejected.parquet",
    "models/base",
    "models/finetuned",
    "models/exported",
    "models/serving",
    "reports/export.json",
    "reports/metrics.json",
    "reports/plots/confusion.csv",
    "reports/plots/precision_recall.csv",
    "reports/plots/reliability.csv",
    "reports/plots/roc.csv",
    "reports/plots/slices.csv",
    "reports/plots/training.csv",
    "reports/plots/validation.csv",
    "reports/registration.json",
    "reports/model_card.md",
)


def orphans(revision: Revision) -> tuple[str, ...]:
    """Return outs in `dvc.lock`, and results in the folder, that are an out of no stage of `dvc.yaml`, in order.

    Take none of them for true.
    """
    made = {PurePosixPath(out) for node in revision.graph.values() for out in node.outs}
    locked = [path for stage in revision.lock for path in revision.hashes(stage, "outs")]
    here = [path for path in BELIEVED if (revision.folder / path).exists()]

    def is_made(path: PurePosixPath) -> bool:
        return path in made or any(parent in made for parent in path.parents)

    return tuple(sorted({path for path in (*locked, *here) if not is_made(PurePosixPath(path))}))
