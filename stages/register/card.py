"""The model card: what the model is, what it was made of, how good it is and where it ends."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.params import FinetuneParams, Params
from stages.common.params.strategies import ADAPTERS
from stages.register.card_sections import behaviour, cell, code, exported, gains, probabilities, worst_slices
from stages.register.gates import Verdict

TEMPLATE = """---
library_name: transformers
pipeline_tag: text-classification
tags: [attune, text-classification]
---

# {name}

Predicts one of {labels} for a text. Fine-tuned ({strategy}) from {base}.

## Data

| split | rows | {label_heads} |
|---|---|{label_rule}|
{splits}

{augmented}{sources}

{kept} of {read} rows read reached a split; the others are listed with their reasons in `data/raw/rejected.parquet` and
`data/clean/rejected.parquet`. {grouped}

## Scores on {rows} test rows

| | accuracy | macro-F1 |
|---|---|---|
{scores}

In brackets: {confidence:g}% bootstrap interval.

| label | precision | recall | F1 | rows |
|---|---|---|---|---|
{classes}

{gains}{worst}## Probabilities

{probabilities}

{behaviour}{exported}## Gates

{gates}

## Training

{settings}

## Limits

- Scores hold for texts like those of the test split; other subjects, languages and times were not measured.
- Texts are cut to {max_length} tokens.
- {chances}
- Labels come from the sources named above, with their errors and their point of view.
"""

CHANCES = "The probabilities are calibrated on texts like those of the validation split; elsewhere they mean less."
RANKING = "The probabilities are not calibrated: read them as a ranking, not as chances."


def model_card(
    params: Params,
    metrics: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    raw: Path,
    clean: Path,
    made: Mapping[str, int],
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
        made: rows that augmentation added to train, by method.
        export: content of `reports/export.json`.
        slices: `reports/plots/slices.csv`.
    """
    manifest, cleaned = (json.loads(path.read_text(encoding="utf-8")) for path in (raw, clean))
    labels = list(metrics["per_class"])
    finetune = params.finetune.model_dump(mode="json")
    calibrated = bool(metrics.get("calibration")) and params.evaluate.calibration.temperature
    return TEMPLATE.format(
        name=params.register_.model_name,
        labels=", ".join(code(label) for label in labels),
        strategy=_strategy(params.finetune),
        base=code(params.ingest.base_model.origin),
        label_heads=" | ".join(cell(label) for label in labels),
        label_rule="|".join("---" for _ in labels),
        splits="\n".join(
            f"| {name} | {split['rows']} | " + " | ".join(str(split["labels"].get(label, 0)) for label in labels) + " |"
            for name, split in cleaned["splits"].items()
        ),
        augmented=_augmented(made),
        sources="\n".join(
            f"- {code(source['origin'])}, licence: {cell(source['licence'] or 'not stated')}, "
            f"SHA-256 `{source['sha256']}`"
            for source in manifest["sources"]
        ),
        kept=cleaned["rows_kept"],
        read=manifest["rows_read"],
        grouped="No group is in two splits." if cleaned["splits"]["train"]["groups"] else "The rows have no groups.",
        rows=metrics["rows"],
        scores="\n".join(
            _score_line(name, values) for name, values in {"**this model**": metrics, **metrics["baselines"]}.items()
        ),
        confidence=100 * params.evaluate.bootstrap.confidence,
        classes="\n".join(
            f"| {cell(label)} | {one['precision']:.4f} | {one['recall']:.4f} | {one['f1']:.4f} | {one['support']} |"
            for label, one in metrics["per_class"].items()
        ),
        gains=gains(metrics["baselines"], params.evaluate.bootstrap.confidence),
        worst=worst_slices(slices),
        probabilities=probabilities(metrics, calibrated),
        behaviour=behaviour(metrics.get("behaviour") or {}),
        exported=exported(export),
        chances=CHANCES if calibrated else RANKING,
        gates="\n".join(f"- {cell(verdict.line())}" for verdict in verdicts) or "None were set.",
        settings="\n".join(f"- `{key}`: {value}" for key, value in finetune.items()),
        max_length=params.tokenize.max_length,
    )


def _strategy(how: FinetuneParams) -> str:
    """Return what was trained, with its options, and where an adapter went."""
    options = how.options.model_dump() if how.options else {}
    told = [how.strategy, *(f"{key} {value}" for key, value in options.items() if value is not None)]
    if how.strategy in ADAPTERS:
        told.append("merged into the weights" if how.merges else "kept beside the weights")
    return cell(", ".join(told))


def _augmented(made: Mapping[str, int]) -> str:
    listed = ", ".join(f"{rows} by {name.replace('_', ' ')}" for name, rows in made.items())
    return f"Train grew by {sum(made.values())} rows that augmentation made: {listed}.\n\n" if made else ""


def _score_line(name: str, values: Mapping[str, Any]) -> str:
    cells = [
        f"{values[key]:.4f} [{values[f'{key}_low']:.4f}, {values[f'{key}_high']:.4f}]"
        for key in ("accuracy", "macro_f1")
    ]
    return f"| {name} | {cells[0]} | {cells[1]} |"
