"""export: write the model as ONNX and in 8 bits, compare both with the original, and keep what is as good."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from stages.common.digests import sha256_file, sha256_path
from stages.common.params import ExportParams
from stages.common.pipeline.stage import LOGS, Run, stage, write_json
from stages.common.schemas import CleanRecords
from stages.export.verdict import Form, compare, judge
from stages.serving.backends import FILES, Classifier, Package, labels_of
from stages.serving.latency import Latency, latencies
from stages.tasks.encoding import texts_and_pairs
from stages.tasks.scores import class_numbers
from stages.tasks.size import size_of

NOT_ASKED = Form(False, "switched off in params.yaml")
CALLS = {1: 100, 32: 6}  # texts a call: calls that are measured
SECONDS = 6.0  # for each of these, after which no further turn begins


@stage("export")
def main(run: Run[ExportParams]) -> None:
    """Write the files, compare their answers and times with those of the original, and drop what is not as good."""
    import transformers

    from stages.tracking.publish import publish_live

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    test = CleanRecords.read(run.input("data/clean/test.parquet"))
    folder = run.output("models/exported")
    package = Package(run.input("models/finetuned"), folder)

    forms = _write(run.params, package.model, folder)
    texts, pairs = texts_and_pairs(test)
    actual = class_numbers(test["label"], labels_of(package.model))
    answers = {name: Classifier(package, name).probabilities(texts, pairs) for name in package.variants}
    times = _times(package, texts, pairs)
    costs = _costs(package, folder, times)
    for name, file in FILES.items():
        path = folder / file
        if name in answers:
            scores = compare(answers["torch"], answers[name], actual)
            faster = times[1][name].p50_ms < times[1]["torch"].p50_ms
            forms[name] = judge(name, path.stat().st_size, scores, faster, run.params.allowed_drop)
            if not forms[name].offered:
                path.unlink()
        print(f"  {name}: {'offered' if forms[name].offered else 'not offered'}: {forms[name].reason}", flush=True)
    report = {
        name: asdict(forms[name]) | {"sha256": sha256_file(folder / file) if forms[name].offered else None}
        for name, file in FILES.items()
    }
    write_json({"model": sha256_path(package.model), **report}, run.output("reports/export.json"))
    publish_live(run, package.model, costs=costs)


def _write(params: ExportParams, model: Path, folder: Path) -> dict[str, Form]:
    """Write the files asked for; return those that there are none of, each with the reason."""
    from stages.export.files import NotExported, write_int8, write_onnx

    folder.mkdir(parents=True, exist_ok=True)  # though it may stay empty
    if not params.onnx:
        return dict.fromkeys(FILES, NOT_ASKED)
    forms = {} if params.int8 else {"int8": NOT_ASKED}
    try:
        write_onnx(model, folder / FILES["onnx"])
    except NotExported as reason:
        return {"onnx": Form(False, str(reason)), "int8": Form(False, "there is no ONNX model to make it of"), **forms}
    if params.int8:
        try:
            write_int8(folder / FILES["onnx"], folder / FILES["int8"])
        except NotExported as reason:
            forms["int8"] = Form(False, str(reason))
    return forms


def _times(package: Package, texts: Sequence[str], pairs: Sequence[str] | None) -> dict[int, dict[str, Latency]]:
    """Return the times of all forms by texts a call: interleaved, and with one thread, as a form costs."""
    classifiers: dict[str, Classifier] = {name: Classifier(package, name, threads=1) for name in package.variants}
    return {size: latencies(classifiers, texts, size, calls, pairs, SECONDS) for size, calls in CALLS.items()}


def _costs(package: Package, folder: Path, times: dict[int, dict[str, Latency]]) -> dict[str, float]:
    """Print what the forms cost on this machine, now, write it to `logs/`, and return it by name; it is no out."""
    size = size_of(package.model)
    print(f"  {size['parameters']:,} parameters; on this machine, with one thread:")
    costs: dict[str, float] = {"parameters": size["parameters"]}
    for name in package.variants:
        mib = ((folder / FILES[name]).stat().st_size if name in FILES else size["bytes"]) / 2**20
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


if __name__ == "__main__":
    main()
