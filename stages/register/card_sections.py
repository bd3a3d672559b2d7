"""Parts of the model card: what the scores are held against, and how far the model can be trusted."""

import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from stages.common.shown import shown, visible

WORST = 3  # slices that are listed
FORMS = {"onnx": "ONNX", "int8": "ONNX, 8 bits"}
LONGEST = 80  # characters shown of a name that comes out of the data


def gains(baselines: Mapping[str, Mapping[str, Any]], confidence: float) -> str:
    """Return a table of what the model gains over each baseline on the same rows; empty where it was not measured."""
    lines = [
        f"| {cell(name)} | {_gain(found, 'accuracy')} | {_gain(found, 'macro_f1')} "
        f"| {found['fixed']} | {found['broken']} | {found['mcnemar_p']:.2g} |"
        for name, found in baselines.items()
        if "mcnemar_p" in found
    ]
    if not lines:
        return ""
    head = "| gain over | accuracy | macro-F1 | rows fixed | rows broken | McNemar's p |"
    told = f"On the same rows; in brackets: {100 * confidence:g}% interval of the difference (paired bootstrap)."
    return "\n".join([head, "|---|---|---|---|---|---|", *lines, "", told]) + "\n\n"


def worst_slices(slices: pl.DataFrame) -> str:
    """Return a table of the slices (slice, rows, accuracy, macro_f1) that the model is least accurate in."""
    worst = slices.sort("accuracy", maintain_order=True).head(WORST).rows(named=True)
    if not worst:
        return ""
    lines = [
        f"| {cell(shown(one['slice'], LONGEST))} | {one['rows']} | {one['accuracy']:.4f} | {one['macro_f1']:.4f} |"
        for one in worst
    ]
    head = f"| weakest of {slices.height} slices | rows | accuracy | macro-F1 |"
    return "\n".join([head, "|---|---|---|---|", *lines]) + "\n\n"


def probabilities(metrics: Mapping[str, Any], fitted: bool) -> str:
    """Return what the probabilities are worth, and below which the model abstains.

    Args:
        metrics: content of `reports/metrics.json`.
        fitted: whether a temperature was.
    """
    found = metrics.get("calibration")
    if not found:
        return "How well they are calibrated was not measured."
    now = f"expected calibration error {found['ece']:.4f}, Brier score {found['brier']:.4f} on the test rows"
    if fitted:
        told = f"Calibrated: logits are divided by {found['temperature']:g}, fitted on validation; {now} "
        told += f"(uncalibrated, the error is {found['ece_before']:.4f})."
    else:
        told = f"Not calibrated; {now}."
    return f"{told}\n\n{_thresholds(metrics.get('thresholds'))}"


def behaviour(tests: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of the behavioural tests and their pass rates."""
    if not tests:
        return ""
    lines = [
        f"| {cell(name)} | {cell(one['kind'])} | {one['cases']} | {_share(one['pass_rate'])} |"
        for name, one in tests.items()
    ]
    head = ["## Behaviour", "", "| test | kind | cases | passed |", "|---|---|---|---|"]
    return "\n".join([*head, *lines]) + "\n\n"


def exported(export: Mapping[str, Any]) -> str:
    """Return a table of the other forms of the model, beside the original."""
    forms = {name: form for name, form in export.items() if name in FORMS and isinstance(form, Mapping)}
    if not forms:
        return ""
    lines = []
    for name, form in forms.items():
        offered = "yes" if form["offered"] else f"no: {form.get('reason') or 'no reason given'}"
        size = form.get("bytes")
        numbers = (
            "–" if size is None else f"{size / 2**20:.1f} MiB",
            "–" if form.get("accuracy") is None else f"{form['accuracy']:.4f}",
            "–" if form.get("accuracy_change") is None else f"{form['accuracy_change']:+.4f}",
            _share(form.get("agreement")),
        )
        lines.append(f"| {FORMS[name]} | {cell(offered)} | {' | '.join(numbers)} |")
    head = "| form | offered | size | accuracy | change | same answer as the original |"
    return "\n".join(["## Exported forms", "", head, "|---|---|---|---|---|---|", *lines]) + "\n\n"


def cell(text: str) -> str:
    """Return text on one line that can neither end a table cell nor start markup."""
    return re.sub(r"([\\`*_\[\]<>&|~$])", r"\\\1", " ".join(visible(text).split()))


def code(text: str) -> str:
    """Return text as a code span, in which only a backtick means anything."""
    return f"`{' '.join(visible(text).split()).replace('`', chr(39))}`"


def _gain(found: Mapping[str, Any], metric: str) -> str:
    gain, low, high = (found[f"{metric}_gain{end}"] for end in ("", "_low", "_high"))
    return f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"


def _thresholds(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "It has no thresholds: it answers every text."
    told = (
        f"It abstains below a threshold of each label, chosen on validation, and so answers {_share(found['coverage'])}"
    )
    told += f" of the test rows; {_share(found['accuracy'])} of these answers are right."
    lines = [
        f"| {cell(label)} | {'never answered' if one['threshold'] is None else format(one['threshold'], '.4f')} "
        f"| {_share(one['precision'])} | {_share(one['recall'])} | {_share(one['coverage'])} |"
        for label, one in found["labels"].items()
    ]
    head = "| label | threshold | precision | recall | answered |"
    return "\n".join([told, "", head, "|---|---|---|---|---|", *lines])


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
