"""A packaged model that answers: out of safetensors with torch, or out of ONNX without it.

Importing torch or transformers takes seconds and hundreds of MiB, so each is imported where it is needed alone. What is
imported of Attune here goes into the registry with the model: `stages/tracking/package.py` lists it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from stages.common.text.cleaning import TextCleaning
from stages.tasks import FIRST, load_task, read_decision
from stages.tasks.inference import labels_of, longest_first

Variant = Literal["torch", "onnx", "int8", "bf16"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
FILES = {"onnx": "model.onnx", "int8": "int8.onnx", "bf16": "bf16"}  # the last one is a folder
BATCH = 64
SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]  # onnxruntime's, on CPUs: docs/export.md
UNLIMITED = 10**9  # what transformers writes for a model without a longest text is more than that

Columns = dict[str, list[list[int]]]  # a list of numbers per text, by the name of the model's input
Forward = Callable[[dict[str, np.ndarray]], np.ndarray]  # inputs [b x s] int64 by name to logits [b x k] float32


@dataclass(frozen=True)
class Package:
    """Where the parts of a model lie.

    `serving` has `decision.json`, `text_cleaning.json` and `profile.json`. Without it, outputs are uncalibrated, the
    model never abstains, and texts are taken as they come.
    """

    model: Path  # config, weights and tokenizer, as `models/finetuned`
    exported: Path | None = None  # ONNX files, as `models/exported`
    serving: Path | None = None  # as `models/serving`

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


class Predictor:
    """Texts in, outputs of the task out; texts of requests go through `cleaning` first, those of data have been.

    Without a variant it is ONNX where it was exported, else torch; without a number of threads it takes all cores. The
    task is that of a package without `serving`, whose outputs stay as the model gives them. A ValueError if the package
    has no such variant.
    """

    def __init__(
        self,
        package: Package,
        variant: Variant | None = None,
        threads: int | None = None,
        task: str = FIRST,
        device: str = "cpu",
    ) -> None:
        self.variant: Variant = variant or ("onnx" if "onnx" in package.variants else "torch")
        if self.variant not in package.variants:
            raise ValueError(f"the model has no {self.variant}; it has {', '.join(package.variants)}")
        decided = read_decision(package.serving) if package.serving else None
        self.decision: Any = decided or load_task(task).undecided(package.model)
        self.task, self.folder = load_task(self.decision.task), package.model
        quick = self.variant in ("onnx", "int8") and (package.model / "tokenizer.json").exists()
        plain = QuickTokens if quick else TransformersTokens
        self.tokens: Any = self.task.tokens(package.model) or plain(package.model)
        self.network: Any = None
        if self.variant in ("torch", "bf16") or not package.exported:
            part = package.exported / FILES["bf16"] if package.exported and self.variant == "bf16" else package.model
            self.network = self.task.load(part)
            self.forward = _torch_forward(self.network, threads, device)
        else:
            self.forward = _onnx_forward(package.exported / FILES[self.variant], threads)
        labels = labels_of(package.model)
        self._outputs = self.task.width or len(labels)
        if getattr(self.decision, "labels", labels) != labels:
            raise ValueError(f"{package.serving} belongs to a model with other labels than {package.model}")
        self.cleaning = TextCleaning.read(package.serving) if package.serving else None

    def outputs(self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = BATCH) -> np.ndarray:
        """Return the outputs for each text (or pair of texts) as they are answered with, [n x k] float64.

        Texts are cut to the model's length; batches hold texts of similar length, so that little of them is padding.
        """
        if self.variant == "int8":
            batch_size = 1  # else an answer would hang on its neighbours, which share the scale of the activations
        result = np.zeros((len(texts), self._outputs))
        if not len(texts):
            return result
        encoded = self.tokens.encode(list(texts), list(pairs) if pairs is not None else None)
        for rows, batch in longest_first(encoded, batch_size):
            result[rows] = self.task.activate(self.forward(self.tokens.pad(batch)))
        return np.asarray(self.decision.calibrated(result))


class TransformersTokens:
    """Texts to token ids, by the tokenizer as transformers loads it."""

    def __init__(self, model: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(model)

    def encode(self, texts: list[str], pairs: list[str] | None) -> Columns:
        """Return `input_ids` and what belongs to them, cut to the model's length and not padded."""
        return dict(self._tokenizer(texts, pairs, truncation=True))

    def pad(self, columns: Columns) -> dict[str, np.ndarray]:
        """Return columns of one batch as arrays [b x s] int64."""
        padded = self._tokenizer.pad(columns, return_tensors="np")
        return {name: np.asarray(values, np.int64) for name, values in padded.items()}


class QuickTokens:
    """The same out of a plain `tokenizer.json`, which nearly all models have, by `tokenizers` alone."""

    def __init__(self, model: Path) -> None:
        from tokenizers import Tokenizer

        settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if (longest := settings.get("model_max_length", UNLIMITED)) < UNLIMITED:
            self._tokenizer.enable_truncation(longest, direction=settings.get("truncation_side", "right"))
        pad = settings.get("pad_token") or ""
        pad_id = self._tokenizer.token_to_id(pad["content"] if isinstance(pad, dict) else pad)
        self._padding = {"input_ids": pad_id or 0, "attention_mask": 0, "token_type_ids": 0}
        self._left = settings.get("padding_side") == "left"

    def encode(self, texts: list[str], pairs: list[str] | None) -> Columns:
        """See TransformersTokens."""
        rows: Sequence[Any] = texts if pairs is None else list(zip(texts, pairs, strict=True))
        encodings = self._tokenizer.encode_batch_fast(rows)  # "fast" leaves out the places of tokens in the text
        return {
            "input_ids": [encoding.ids for encoding in encodings],
            "token_type_ids": [encoding.type_ids for encoding in encodings],
            "attention_mask": [encoding.attention_mask for encoding in encodings],
        }

    def pad(self, columns: Columns) -> dict[str, np.ndarray]:
        """See TransformersTokens."""
        longest = max(map(len, columns["input_ids"]))
        arrays = {name: np.full((len(rows), longest), self._padding[name]) for name, rows in columns.items()}
        for name, rows in columns.items():
            for index, numbers in enumerate(rows):
                arrays[name][index, slice(-len(numbers), None) if self._left else slice(len(numbers))] = numbers
        return arrays


def _torch_forward(network: Any, threads: int | None, device: str) -> Forward:
    import torch

    if threads:
        torch.set_num_threads(threads)
    network = network.to(device)

    def forward(batch: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(values).to(device) for name, values in batch.items()}
            logits = network(**inputs).logits
            return np.asarray((logits if logits.dtype == torch.float64 else logits.float()).cpu().numpy())

    return forward


def _onnx_forward(file: Path, threads: int | None) -> Forward:
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
