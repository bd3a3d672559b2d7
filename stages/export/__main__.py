"""export: write the model as ONNX and in 8 bits, hold both against the original, and keep what is as good."""

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from stages.common.digests import sha256_file, sha256_path
from stages.common.params import ExportParams
from stages.common.schemas import CleanRecords
from stages.common.serving.classifier import FILES, Classifier, Package, labels_of
from stages.common.stage import LOGS, Run, stage, write_json
from stages.export import verdict
from stages.export.costs import Cost, measure, table
from stages.export.verdict import Form
from stages.tasks.encoding import texts_and_pairs
from stages.tasks.scores import class_numbers

NOT_ASKED = Form(False, "switched off in params.yaml")


@stage("export")
def main(run: Run[ExportParams]) -> None:
    """Write the files, compare their answers and times with those of the original, and drop what is not as good."""
    import transformers

    from stages.common.tracking.publish import publish_live

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    test = CleanRecords.read(run.input("data/clean/test.parquet"))
    package = Package(run.input("models/finetuned"), run.output("models/exported"))
    folder = run.output("models/exported")

    refused = _write(run.params, package.model, folder)
    forms: dict[str, Classifier] = {variant: Classifier(package, variant) for variant in package.variants}
    texts, pairs = texts_and_pairs(test)
    actual = class_numbers(test["label"], labels_of(package.model))
    answers = {name: form.probabilities(texts, pairs) for name, form in forms.items()}
    costs = measure(package, texts, pairs)
    report = {name: refused.get(name) or _judged(name, run.params, folder, answers, costs, actual) for name in FILES}
    for name, form in report.items():
        if not form.offered:
            (folder / FILES[name]).unlink(missing_ok=True)
        print(f"  {name}: {'offered' if form.offered else 'not offered'}: {form.reason}", flush=True)
    told = {
        name: {**asdict(form), "sha256": sha256_file(folder / FILES[name]) if form.offered else None}
        for name, form in report.items()
    }
    write_json({"model": sha256_path(package.model), **told}, run.output("reports/export.json"))
    publish_live(run, package.model, costs=_told(package.model, costs))


def _write(params: ExportParams, model: Path, folder: Path) -> dict[str, Form]:
    """Write the files asked for; return those that there are none of, each with the reason."""
    from stages.export.files import NotExported, write_int8, write_onnx

    folder.mkdir(parents=True, exist_ok=True)  # though it may stay empty
    if not params.onnx:
        return dict.fromkeys(FILES, NOT_ASKED)
    try:
        write_onnx(model, folder / FILES["onnx"])
    except NotExported as reason:
        none_to_make_it_of = Form(False, "there is no ONNX model to make it of") if params.int8 else NOT_ASKED
        return {"onnx": Form(False, str(reason)), "int8": none_to_make_it_of}
    if not params.int8:
        return {"int8": NOT_ASKED}
    try:
        write_int8(folder / FILES["onnx"], folder / FILES["int8"])
    except NotExported as reason:
        return {"int8": Form(False, str(reason))}
    return {}


def _judged(
    name: str,
    params: ExportParams,
    folder: Path,
    answers: dict[str, np.ndarray],
    costs: dict[str, Cost],
    actual: np.ndarray,
) -> Form:
    found = verdict.held_against(answers["torch"], answers[name], actual)
    faster = costs[name].latency[1].p50_ms < costs["torch"].latency[1].p50_ms
    size = (folder / FILES[name]).stat().st_size
    if name == "onnx":
        return verdict.of_onnx(size, found, faster)
    return verdict.of_int8(size, found, faster, params.allowed_drop)


def _told(model: Path, costs: dict[str, Cost]) -> dict[str, float]:
    """Print what the forms cost, keep it in `logs/`, and return it by name."""
    from stages.tasks.size import size_of

    parameters = size_of(model)["parameters"]
    print(f"  {parameters:,} parameters; on this machine, with one thread:")
    print("\n".join(table(costs)), flush=True)
    found: dict[str, float] = {"parameters": parameters}
    found |= {f"{name}_{key}": value for name, cost in costs.items() for key, value in cost.numbers().items()}
    try:
        LOGS.mkdir(exist_ok=True)
        write_json(found, LOGS / "cost.json")
    except OSError as error:
        print(f"  warning: the costs were not kept: {error}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
