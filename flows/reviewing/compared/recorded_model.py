"""The recorded model, asked here: whether it is the model that gave the recorded predictions, in each of its forms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flows.reviewing.compared.closeness import Slack, json_apart
from flows.reviewing.compared.file_differences import difference, read_json
from flows.reviewing.revision import Revision
from flows.told.redact import redacted
from stages.common.serving.classifier import FILES, Classifier, Package, Variant
from stages.common.serving.decision import Decision
from stages.common.shown import shown

MODEL, EXPORTED, SERVING = "models/finetuned", "models/exported", "models/serving"
PREDICTIONS, TEST, EXPORT = "data/predictions.parquet", "data/clean/test.parquet", "reports/export.json"
SURE = 0.05  # by which a probability may differ from the recorded one
WIDTH = 160  # characters of a reason


def model_against(recorded: Revision, rebuilt: Revision, slack: Slack) -> dict[str, str]:
    """Have the recorded model predict the test rows here, and return why an out of it may not pass, by path.

    Of the folder, only weights may have other bytes. The model has to give the recorded predictions, and the rebuilt
    ones, for the least share of rows; each exported form has to agree with it as often as the rebuilt form agrees with
    the rebuilt model, less the share that may differ: an export is worth how near it comes to its original. It takes
    about as long as evaluating the model does, and no weights are loaded beside a config that is not the rebuilt one.

    Args:
        recorded: the revision as its commit has it.
        rebuilt: the same, made again: what it has is true here.
        slack: what may differ.
    """
    if told := _other_files(recorded.folder / MODEL, rebuilt.folder / MODEL):
        return {MODEL: told}
    found: dict[str, str] = {}
    if told := _attempt(lambda: _decision(recorded.folder / SERVING, rebuilt.folder / SERVING, slack)):
        return {SERVING: told}
    exported = recorded.folder / EXPORTED
    names = sorted(path.name for path in exported.iterdir()) if exported.is_dir() else []
    if strange := [name for name in names if name not in FILES.values()]:
        return {EXPORTED: f"{shown(strange[0], WIDTH)} in it is no form of the model"}
    package = Package(recorded.folder / MODEL, exported, recorded.folder / SERVING)
    test = rebuilt.table(TEST)
    if test is None:
        return {MODEL: f"{TEST} is not there or not readable"}
    answers: dict[Variant, np.ndarray] = {}
    if told := _attempt(lambda: _of_torch(package, test, recorded, rebuilt, slack, answers)):
        return {MODEL: told}
    export = rebuilt.report(EXPORT)
    for variant in package.variants[1:]:
        least = _least(export.get(variant), slack)
        if told := _attempt(lambda: _of_export(package, variant, test, answers["torch"], least)):  # noqa: B023
            found.setdefault(EXPORTED, f"{FILES[variant]}: {told}")
    return found


def _attempt(look: Callable[[], str]) -> str:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return look()
    except Exception as error:  # of a model that was tampered with, anything
        return shown(redacted(f"cannot be used: {type(error).__name__}: {error}"), WIDTH)


def _other_files(old: Path, new: Path) -> str:
    """Return which file beside the weights differs."""
    before, after = (
        {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
        for folder in (old, new)
    )
    for name in sorted(before.keys() ^ after.keys()):
        return f"{shown(name, WIDTH)} is in {'the record' if name in before else 'the rebuild'} alone"
    for name in before:
        if not name.endswith(".safetensors") and (told := difference(before[name], after[name])):
            return f"{shown(name, WIDTH)}: {told}"
    return ""


def _decision(old: Path, new: Path, slack: Slack) -> str:
    """Return how temperature, thresholds and profile are not close."""
    before, after = Decision.read(old), Decision.read(new)
    if before.labels != after.labels:
        return "decision.json: the labels are others"
    names = sorted({path.name for folder in (old, new) for path in folder.iterdir()})
    for name in names:
        was, now = (read_json(folder / name) for folder in (old, new))
        if told := json_apart(was, now, slack):
            return f"{shown(name, WIDTH)}: {told}"
    if abs(before.temperature - after.temperature) > 0.1 * after.temperature:
        return f"decision.json: temperature {before.temperature:g} → {after.temperature:g}"
    return ""


def _asked(package: Package, variant: Variant, test: pl.DataFrame) -> tuple[np.ndarray, Decision]:
    """Return the probabilities [n x k] of the test rows."""
    from stages.tasks.encoding import texts_and_pairs

    classifier = Classifier(package, variant)
    return classifier.probabilities(*texts_and_pairs(test)), classifier.decision


def _of_torch(
    package: Package,
    test: pl.DataFrame,
    recorded: Revision,
    rebuilt: Revision,
    slack: Slack,
    answers: dict[Variant, np.ndarray],
) -> str:
    """Return how the model's answers are not those that were recorded, or not the rebuilt ones; keep them."""
    found, decision = _asked(package, "torch", test)
    answers["torch"] = found
    said = pl.Series([decision.labels[at] for at in found.argmax(axis=1)], dtype=pl.String)
    for revision, whose in ((recorded, "recorded"), (rebuilt, "rebuilt")):
        table = revision.table(PREDICTIONS)
        if table is None:
            return f"the {whose} predictions cannot be read"
        table = test.select("id").join(table, on="id", how="left", maintain_order="left")
        if told := _too_few((said == table["prediction"]).fill_null(False).to_numpy(), slack.least, f"the {whose} one"):
            return told
        if revision is recorded:
            given = np.array(table["probabilities"].to_list(), np.float64)
            near = (np.abs(given - found) <= SURE).all(axis=1) & (
                np.abs(table["confidence"].to_numpy() - found.max(axis=1)) <= SURE
            )
            if told := _too_few(near, slack.least, "the recorded probabilities"):
                return told
            if told := _too_few(
                decision.abstains(found) == table["abstained"].to_numpy(), slack.least, "abstained as recorded"
            ):
                return told
    return ""


def _of_export(package: Package, variant: Variant, test: pl.DataFrame, original: np.ndarray, least: float) -> str:
    found, _ = _asked(package, variant, test)
    return _too_few(found.argmax(axis=1) == original.argmax(axis=1), least, "that of the recorded model")


def _least(report: Any, slack: Slack) -> float:
    """Return the share of rows on which an exported form has to agree with its model."""
    agreement = report.get("agreement") if isinstance(report, dict) else None
    return (agreement if isinstance(agreement, int | float) else 1.0) - (1 - slack.least)


def _too_few(same: np.ndarray, least: float, what: str) -> str:
    """Return that rows get another answer; nothing if enough get the same."""
    if same.sum() >= least * len(same) - 1e-9:
        return ""
    return f"asked here, its answer is {what} for only {int(same.sum()):,} of {len(same):,} test rows"
