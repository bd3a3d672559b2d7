"""What both models cost: their sizes, and how long they take for a text on this machine, measured in turns."""

from pathlib import Path

from flows.reviewing.effect import TEST
from flows.reviewing.findings import Figure
from flows.reviewing.revision import Revision
from stages.common.digests import sha256_path
from stages.common.serving.classifier import FILES, Package, Variant

MIB = 2**20
LARGEST = 1024 * MIB  # of weights: larger models take too long to load for a review
TEXTS = 100  # of the head's test split, that models are timed with
CALLS = 200  # of each, at most
SECONDS = 1.5  # after which none of the two has another turn, for each form of the model
SIZES = {"weights": "", "size of the model": "MiB", "size as ONNX": "MiB", "size in 8 bits": "MiB"}
TIMES: dict[Variant, str] = {"torch": "latency of one text", "int8": "latency of one text in 8 bits"}


def measured(base: Revision, head: Revision) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """Return the costs of both models, and what could not be measured, a line each; never part of any out.

    Latency is the median of one text at a time, as the server answers it. Equal models are not timed: the difference
    would be noise.
    """
    packages = [Package.of_project(revision.folder) for revision in (base, head)]
    missing: list[str] = []
    old, new = (_sizes(package, missing) for package in packages)
    figures = [
        Figure(name, old.get(name), new.get(name), unit) for name, unit in SIZES.items() if name in {**old, **new}
    ]
    for form, name in TIMES.items():
        files = [_file(package, form) for package in packages]
        there = all(form in package.variants for package in packages) and all(file.exists() for file in files)
        if not there or sha256_path(files[0]) == sha256_path(files[1]):
            continue
        weights = [file.stat().st_size for package in packages for file in package.model.glob("*.safetensors")]
        if max(weights, default=0) > LARGEST:
            missing.append(f"{name} is not measured: the weights are over {LARGEST // MIB:,} MiB")
            continue
        try:
            figures.append(Figure(name, *_milliseconds(packages, form, head), "ms"))
        except Exception as error:  # whatever a model that is not as it should be makes of it
            missing.append(f"{name} could not be measured: {type(error).__name__}: {error}")
    return tuple(figures), tuple(missing)


def _sizes(package: Package, missing: list[str]) -> dict[str, float]:
    """Return the number of weights, and MiB, of each form of a model that is there."""
    from safetensors import SafetensorError

    from stages.tasks.size import size_of

    forms: dict[str, Variant] = {"size as ONNX": "onnx", "size in 8 bits": "int8"}
    found = {
        name: _file(package, form).stat().st_size / MIB for name, form in forms.items() if form in package.variants
    }
    try:
        size = size_of(package.model)
    except (OSError, SafetensorError) as error:
        missing.append(f"the size of a model is not known: {error}")
        return found
    return found | (
        {"weights": float(size["parameters"]), "size of the model": size["bytes"] / MIB} if size["bytes"] else {}
    )


def _file(package: Package, form: Variant) -> Path:
    return package.model if form == "torch" or package.exported is None else package.exported / FILES[form]


def _milliseconds(packages: list[Package], form: Variant, head: Revision) -> tuple[float, float]:
    """Return the median time for one text of both models."""
    import transformers

    from stages.common.serving.classifier import Classifier
    from stages.common.serving.latency import latencies

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    test = head.table(TEST)
    if test is None:
        raise ValueError(f"{TEST} is not there or not readable")
    rows = test.sort("id").head(TEXTS)
    pairs = rows["text_pair"].to_list() if "text_pair" in rows.columns else []
    seconds = None if None in pairs or not pairs else pairs
    classifiers = {name: Classifier(package, form) for name, package in zip(("base", "head"), packages, strict=True)}
    found = latencies(classifiers, rows["text"].to_list(), 1, CALLS, seconds, SECONDS)
    return found["base"].p50_ms, found["head"].p50_ms
