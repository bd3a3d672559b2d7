"""The model card: what the model is, what it was trained on, how good it is, and its limits."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.common.display import display, visible
from stages.common.params import FinetuneParams, Params
from stages.common.params.finetune import ADAPTERS
from stages.register.gates import Verdict

FORMS = {"onnx": "ONNX", "int8": "ONNX, 8 bits"}
MAX_NAME = 80  # characters of a name that comes out of the data


def model_card(
    params: Params,
    metrics: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    raw: Path,
    clean: Path,
    augmented: Mapping[str, int],
    export: Mapping[str, Any],
    slices: pl.DataFrame,
) -> str:
    """Return the card as Markdown with the metadata block of the Hugging Face Hub.

    Args:
        params: all parameters.
        metrics: content of `reports/metrics.json`.
        verdicts: of the gates.
        raw: `data/raw/manifest.json`.
        clean: `reports/clean.json`.
        augmented: rows that augmentation added to train, by method.
        export: content of `reports/export.json`.
        slices: `reports/plots/slices.csv`.
    """
    manifest, cleaned = (json.loads(path.read_text(encoding="utf-8")) for path in (raw, clean))
    labels, calibration = list(metrics["per_class"]), metrics.get("calibration")
    return _template().render(
        name=params.register_.model_name,
        labels=labels,
        strategy=_strategy(params.finetune),
        base=params.ingest.base_model.origin,
        manifest=manifest,
        cleaned=cleaned,
        splits={
            name: (split["rows"], [split["labels"].get(label, 0) for label in labels])
            for name, split in cleaned["splits"].items()
        },
        augmented=augmented,
        augmented_by=", ".join(f"{rows} by {name.replace('_', ' ')}" for name, rows in augmented.items()),
        metrics=metrics,
        models={"**this model**": metrics, **metrics["baselines"]},
        gains={name: scores for name, scores in metrics["baselines"].items() if "mcnemar_p" in scores},
        confidence=f"{100 * params.evaluate.bootstrap.confidence:g}",
        slices=slices.sort("accuracy", maintain_order=True).rows(named=True),
        calibration=calibration,
        calibrated=bool(calibration) and params.evaluate.calibration.temperature,
        thresholds=metrics.get("thresholds"),
        behaviour=metrics.get("behaviour"),
        exported={FORMS[name]: form for name, form in export.items() if name in FORMS},
        verdicts=verdicts,
        settings=params.finetune.model_dump(mode="json"),
        max_length=params.tokenize.max_length,
    )


def _template() -> Any:
    """Return the template; what stems from the data goes through `cell` or `code`."""
    environment = Environment(  # noqa: S701, Markdown
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": cell,
        "code": lambda text: f"`{' '.join(visible(text).split()).replace('`', chr(39))}`",
        "short": lambda text: display(text, MAX_NAME),
        "score": lambda value: "–" if value is None else f"{value:.4f}",
        "change": lambda value: "–" if value is None else f"{value:+.4f}",
        "share": lambda value: "–" if value is None else f"{100 * value:.1f}%",
        "mib": lambda size: "–" if size is None else f"{size / 2**20:.1f} MiB",
    }
    environment.globals |= {
        "row": lambda *cells: f"| {' | '.join(map(str, cells))} |",
        "interval": lambda scores, key: _interval("{:.4f} [{:.4f}, {:.4f}]", scores, key),
        "gain": lambda scores, key: _interval("{:+.4f} [{:+.4f}, {:+.4f}]", scores, f"{key}_gain"),
    }
    return environment.get_template("card.md.j2")


def _interval(form: str, scores: Mapping[str, float], key: str) -> str:
    return form.format(scores[key], scores[f"{key}_low"], scores[f"{key}_high"])


def cell(text: str) -> str:
    """Return text on one line that can neither end a table cell nor start markup."""
    return re.sub(r"([\\`*_\[\]<>&|~$])", r"\\\1", " ".join(visible(text).split()))


def _strategy(how: FinetuneParams) -> str:
    """Return what was trained, with its options, and where an adapter went."""
    options = how.options.model_dump() if how.options else {}
    parts = [how.strategy, *(f"{key} {value}" for key, value in options.items() if value is not None)]
    if how.strategy in ADAPTERS:
        parts.append("merged into the weights" if how.merges else "kept beside the weights")
    return ", ".join(parts)
