"""Do the model, its forms, its decision and the reports belong together? What is registered must be what was scored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.common.digests import sha256_file, sha256_path
from stages.common.errors import AttuneError
from stages.common.serving.classifier import FILES, Package, labels_of
from stages.common.serving.decision import Decision


def check_parts(package: Package, metrics: Mapping[str, Any], export: Mapping[str, Any]) -> None:
    """Hold the parts of a model against what the reports say that they were made of.

    Args:
        package: the parts.
        metrics: content of `reports/metrics.json`.
        export: content of `reports/export.json`.

    Raises:
        AttuneError: naming the first part that is another one.
    """
    assert package.exported and package.serving
    scored = metrics.get("model", {})
    _same("reports/metrics.json", "models/finetuned", scored.get("digest"), sha256_path(package.model))
    _same("reports/metrics.json", "models/serving", scored.get("serving"), sha256_path(package.serving))
    _same("reports/export.json", "models/finetuned", export.get("model"), scored.get("digest"))
    for name, file in FILES.items():
        path = package.exported / file
        offered = export[name]["sha256"] if export.get(name, {}).get("offered") else None
        _same("reports/export.json", f"models/exported/{file}", offered, _digest(path))
    try:
        labels = Decision.read(package.serving).labels
    except ValueError as error:
        raise AttuneError(str(error), "make it again: dvc repro --force evaluate") from None
    _same("models/serving/decision.json", "the labels of models/finetuned", labels, labels_of(package.model))


def _digest(path: Path) -> str | None:
    return sha256_file(path) if path.exists() else None


def _same(report: str, part: str, said: object, found: object) -> None:
    if said != found:
        raise AttuneError(
            f"{report} does not speak of {part} as it is now", "bring everything up to date: dvc repro (or make run)"
        )
