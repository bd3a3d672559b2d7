"""What both models cost: their sizes, and how long they take for a text on this machine, measured in turns."""

from pathlib import Path

from flows.reviewing.effects.shared_rows import TEST
from flows.reviewing.findings import Figure
from flows.reviewing.revision import Revision
from stages.common.digests import sha256_path
from stages.common.redact import redacted
from stages.common.serving.classifier import FILES, Package, Variant
from stages.common.shown import shown

MIB = 2**20
LARGEST = 1024 * MIB  # of weights: larger models take too long to load for a review
TEXTS = 100  # of the head's test split, that models are timed with
CALLS = 200  # of each, at most
SECONDS = 1.5  # after which none of the two has another turn, for each form of the model
WIDTH = 160  # characters of a reason
SIZES = {"weights": "", "size of the model": "MiB", "size as ONNX": "MiB", "size in 8 bits": "MiB"}
TIMES: dict[Variant, str] = {"torch": "latency of one text", "int8": "latency of one text in 8 bits"}


def measured(base: Revision, head: Revision) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """Return the costs of both models, and what could not be measured, a line each; never part of any out.

    Latency is the median of one text at a time, as the server answers it. Equal models are not timed: the difference
    would be noise.
    """
    packages = [Package.of_project(revision.folder) for revision in (base, head)]
    missing: list[str] = []
    was, now = (_sizes(package, missing) for package in packages)
    figures = [Figure(name, was.get(name), now.get(name), unit, "lower") for name, unit in SIZES.items()]
    for form, name in TIMES.items():
        if not all(form in package.variants and _file(package, form).exists() for package in packages):
            continue
        if _same(packages, form):
            continue
        if _too_large(packages):
            missing.append(f"{name} is not measured: the weights are over {LARGEST // MIB:,} MiB")
            continue
        try:
            figures.append(Figure(name, *_milliseconds(packages, form, head), "ms", "lower"))
        except Exception as error:  # whatever a model that is not as it should be makes of it
            reason = shown(redacted(f"{type(error).__name__}: {error}"), WIDTH)
            missing.append(f"{name} could not be measured: {reason}")
    return tuple(one for one in figures if (one.base, one.head) != (None, None)), tuple(missing)


def _sizes(package: Package, missing: list[str]) -> dict[str, float]:
    """Return the number of weights, and MiB, of each form of a model that is there."""
    from safetensors import SafetensorError

    from stages.tasks.size import size_of

    found: dict[str, float] = {}
    for form, name in (("onnx", "size as ONNX"), ("int8", "size in 8 bits")):
        if form in package.variants:
            found[name] = _file(package, form).stat().st_size / MIB
    try:
        size = size_of(package.model)
    except (OSError, SafetensorError) as error:
        missing.append(f"the size of a model is not known: {shown(redacted(str(error)), WIDTH)}")
        return found
    if size["bytes"]:
        found |= {"weights": float(size["parameters"]), "size of the model": size["bytes"] / MIB}
    return found


def _file(package: Package, form: str) -> Path:
    return package.model if form == "torch" or package.exported is None else package.exported / FILES[form]


def _same(packages: list[Package], form: Variant) -> bool:
    before, after = (sha256_path(_file(package, form)) for package in packages)
    return before == after


def _too_large(packages: list[Package]) -> bool:
    files = [file for package in packages for file in package.model.glob("*.safetensors")]
    return max((file.stat().st_size for file in files), default=0) > LARGEST


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
