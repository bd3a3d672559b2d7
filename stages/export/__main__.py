"""export: write the model as ONNX, in 8 bits and in bfloat16, compare all with the original, keep what is as good."""

import logging
import shutil
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.common.digests import sha256_path
from stages.common.params import ExportParams
from stages.common.pipeline.stage import LOGS, Run, stage, write_json
from stages.common.schemas import CleanRecords
from stages.export.comparison import VariantReport, compare, judge
from stages.serving.backends import FILES, Package, Predictor
from stages.serving.latency import Latency, latencies
from stages.tasks import load_task
from stages.tasks.inference import ADAPTER, size_of
from stages.tracking.publish import publish_live

NOT_ASKED = "switched off in params.yaml"
CALLS = {1: 100, 32: 6}  # texts a call: calls that are measured
SECONDS = 6.0  # for each of these, after which no further turn begins


@stage("export")
def main(run: Run[ExportParams]) -> None:
    """Write the files, compare their answers and times with those of the original, and drop what is not as good."""
    logging.disable(logging.WARNING)  # exporters warn of packages that they do not need
    warnings.simplefilter("ignore")
    rejected = run.input("data/tokenized/rejected.parquet")
    test = CleanRecords.read_tokenized(run.input("data/clean/test.parquet"), rejected)
    folder = run.output("models/exported")
    package = Package(run.input("models/finetuned"), folder)

    missing = write_variants(run.params, package.model, folder)
    reports = {name: VariantReport(False, reason) for name, reason in missing.items()}
    task, main_score = load_task(run.all_params.task), run.all_params.spec.main
    texts, pairs = task.asked(test)
    several = package.variants if len(package.variants) > 1 else []  # of one there is nothing to compare
    answers = {name: Predictor(package, name, task=task.name).outputs(texts, pairs) for name in several}
    # with one thread each, in interleaved calls
    predictors: dict[str, Predictor] = {
        name: Predictor(package, name, threads=1, task=task.name) for name in package.variants
    }
    sizes = CALLS if several else {1: CALLS[1]}
    times = {size: latencies(predictors, texts, size, calls, pairs, SECONDS) for size, calls in sizes.items()}
    costs = record_costs(package, folder, times)
    for name, file in FILES.items():
        path = folder / file
        if name in answers:
            scores = compare(predictors["torch"], test, answers["torch"], answers[name], main_score)
            faster = times[1][name].p50_ms < times[1]["torch"].p50_ms
            reports[name] = judge(name, _bytes(path), scores, faster, run.params.allowed_drop, main_score)
            if not reports[name].offered:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        offer = "offered" if reports[name].offered else "not offered"
        print(f"  {name}: {offer}: {reports[name].reason}", flush=True)
    variants = {
        name: asdict(reports[name]) | {"sha256": sha256_path(folder / file) if reports[name].offered else None}
        for name, file in FILES.items()
    }
    content: dict[str, Any] = {"model": sha256_path(package.model), **variants}
    if (package.model / ADAPTER).exists():
        content["merge_gap"] = gap = task.merge_gap(test, run.input("models/base"), package.model)
        print(f"  its adapter, merged: the loss of a token differs by {gap:g} at most", flush=True)
    write_json(content, run.output("reports/export.json"))
    publish_live(run, package.model, costs=costs)


def write_variants(params: ExportParams, model: Path, folder: Path) -> dict[str, str]:
    """Write the files asked for; return why there are no others, by name of the variant."""
    from stages.export.conversion import write_bf16, write_int8, write_onnx

    folder.mkdir(parents=True, exist_ok=True)  # though it may stay empty
    paths = {name: folder / file for name, file in FILES.items()}
    reasons = {
        "bf16": write_bf16(model, paths["bf16"]) if params.bf16 else NOT_ASKED,
        "onnx": write_onnx(model, paths["onnx"]) if params.onnx else NOT_ASKED,
        "int8": NOT_ASKED,
    }
    if params.int8:
        lacking = "there is no ONNX model to make it of" if reasons["onnx"] else None
        reasons["int8"] = lacking or write_int8(paths["onnx"], paths["int8"])
    return {name: reason for name, reason in reasons.items() if reason}


def record_costs(package: Package, folder: Path, times: dict[int, dict[str, Latency]]) -> dict[str, float]:
    """Print what the variants cost on this machine, write it to `logs/`, and return it by name; it is no out."""
    size = size_of(package.model)
    print(f"  {size['parameters']:,} parameters; on this machine, with one thread:")
    costs: dict[str, float] = {"parameters": size["parameters"]}
    for name in package.variants:
        mib = (_bytes(folder / FILES[name]) if name in FILES else size["bytes"]) / 2**20
        costs[f"{name}_file_mib"] = round(mib, 3)
        line = f"  {name:6}{mib:>8.1f} MiB"
        for texts, latency in times.items():
            for key, value in asdict(latency[name]).items():
                costs[f"{name}_{key}_batch_{texts}"] = round(value, 3)
            line += f"   {texts} text{'s' * (texts > 1)}: {latency[name].p50_ms:.2f} ms"
        print(f"{line}, {latency[name].tokens_per_second:,.0f} tokens/s", flush=True)
    LOGS.mkdir(exist_ok=True)
    write_json(costs, LOGS / "cost.json")
    return costs


def _bytes(path: Path) -> int:
    return size_of(path)["bytes"] if path.is_dir() else path.stat().st_size


if __name__ == "__main__":
    main()
