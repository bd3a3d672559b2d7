"""Texts to token ids as transformers' own tokenizer makes them, with or without transformers.

Its import takes torch's with it: seconds and hundreds of MiB that a model served out of ONNX has no use for.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Columns = dict[str, list[list[int]]]  # a list of numbers per text, by the name of the model's input
UNLIMITED = 10**9  # what transformers writes for a model without a longest text is more than that


class TransformersTokens:
    """The tokenizer as transformers loads it."""

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
        given: Sequence[Any] = texts if pairs is None else list(zip(texts, pairs, strict=True))
        encodings = self._tokenizer.encode_batch_fast(given)  # "fast" leaves out the places of tokens in the text
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
            for row, numbers in enumerate(rows):
                arrays[name][row, slice(-len(numbers), None) if self._left else slice(len(numbers))] = numbers
        return arrays
