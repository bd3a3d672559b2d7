"""A packaged model that answers: out of safetensors with torch, or out of ONNX without it.

What is imported of Attune here goes into the registry with the model: `stages/tracking/packaging.py` lists it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from stages.common.text.cleaning import TextCleaning
from stages.serving.decision import Decision
from stages.serving.tokens import QuickTokens, TransformersTokens

Variant = Literal["torch", "onnx", "int8"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
FILES = {"onnx": "model.onnx", "int8": "int8.onnx"}
BATCH = 64
SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]  # onnxruntime's, on CPUs: docs/export.md

Forward = Callable[[dict[str, np.ndarray]], np.ndarray]  # inputs [b x s] int64 by name to logits [b x k] float32


@dataclass(frozen=True)
class Package:
    """Where the parts of a model lie.

    Args:
        model: config, weights and tokenizer, as `models/finetuned`.
        exported: ONNX files, as `models/exported`; None where there are none.
        serving: `decision.json`, `text_cleaning.json` and `profile.json`, as `models/serving`; None: uncalibrated,
            never abstaining, texts taken as they come.
    """

    model: Path
    exported: Path | None = None
    serving: Path | None = None

    @classmethod
    def within(cls, folder: Path, model: str = "model") -> "Package":
        """Return the package in a folder with `model/` (or another name), `exported/` and `serving/`."""
        exported, serving = folder / "exported", folder / "serving"
        return cls(folder / model, exported if exported.is_dir() else None, serving if serving.is_dir() else None)

    @classmethod
    def of_project(cls, root: Path = Path()) -> "Package":
        """Return the package that a checkout's own pipeline made."""
        return cls.within(root / "models", "finetuned")

    @property
    def variants(self) -> list[Variant]:
        """The forms of the model that are there."""
        made = [name for name, file in FILES.items() if self.exported and (self.exported / file).exists()]
        return ["torch", *made]  # type: ignore[list-item]


class Classifier:
    """Texts in, calibrated probabilities out; texts of requests go through `cleaning` first, those of data have been.

    Args:
        package: the parts of the model.
        variant: which form of it; None: ONNX where it was exported, else torch.
        threads: of the processor; None: one per core.

    Raises:
        ValueError: if the package has no such variant.
    """

    def __init__(self, package: Package, variant: Variant | None = None, threads: int | None = None) -> None:
        self.variant: Variant = variant or ("onnx" if "onnx" in package.variants else "torch")
        if self.variant not in package.variants:
            raise ValueError(f"the model has no {self.variant}; it has {', '.join(package.variants)}")
        quick = self.variant != "torch" and (package.model / "tokenizer.json").exists()
        self.tokens = QuickTokens(package.model) if quick else TransformersTokens(package.model)
        if self.variant == "torch" or not package.exported:
            self.forward = _of_torch(package.model, threads)
        else:
            self.forward = _of_onnx(package.exported / FILES[self.variant], threads)
        labels = labels_of(package.model)
        self.decision = Decision.read(package.serving) if package.serving else Decision(labels)
        if self.decision.labels != labels:
            raise ValueError(f"{package.serving} belongs to a model with other labels than {package.model}")
        self.cleaning = TextCleaning.read(package.serving) if package.serving else None

    @property
    def labels(self) -> list[str]:
        """The labels, in the order of the probabilities."""
        return self.decision.labels

    def probabilities(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = BATCH
    ) -> np.ndarray:
        """Return the calibrated probability of each label for each text (or pair of texts), [n x k] float64.

        Texts are cut to the model's length; batches hold texts of similar length, so that little of them is padding.
        """
        if self.variant == "int8":
            batch_size = 1  # else an answer would hang on its neighbours, which share the scale of the activations
        result = np.zeros((len(texts), len(self.labels)))
        if not len(texts):
            return result
        encoded = self.tokens.encode(list(texts), list(pairs) if pairs is not None else None)
        order = sorted(range(len(texts)), key=lambda at: -len(encoded["input_ids"][at]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = {name: [values[at] for at in chosen] for name, values in encoded.items()}
            logits = self.forward(self.tokens.pad(batch))
            powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
            result[chosen] = powers / powers.sum(axis=1, keepdims=True)
        return self.decision.calibrated(result)


def labels_of(model: Path) -> list[str]:
    """Return a saved model's labels, in the order of its outputs."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    names = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})  # transformers does not write what it would say
    return [names[str(at)] for at in range(len(names))]


def _of_torch(model: Path, threads: int | None) -> Forward:
    import torch

    from stages.tasks.inference import load_classifier

    if threads:
        torch.set_num_threads(threads)
    network = load_classifier(model)

    def forward(batch: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(values) for name, values in batch.items()}
            return np.asarray(network(**inputs).logits.float().numpy())

    return forward


def _of_onnx(file: Path, threads: int | None) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(
        str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
    )
    wanted = {node.name for node in session.get_inputs()}

    def forward(batch: dict[str, np.ndarray]) -> np.ndarray:
        return np.asarray(session.run(["logits"], {name: batch[name] for name in batch if name in wanted})[0])

    return forward
