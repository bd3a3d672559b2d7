"""Rows to batches: tokens in batches of similar length, so that little of a batch is padding."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(tokenizer: "PreTrainedTokenizerBase", rows: pl.DataFrame, **options: Any) -> dict[str, list[list[int]]]:
    """Tokenize the texts (or pairs of texts) of some records."""
    texts, pairs = texts_and_pairs(rows)
    return dict(tokenizer(texts, **options) if pairs is None else tokenizer(texts, pairs, **options))


def texts_and_pairs(rows: pl.DataFrame) -> tuple[list[str], list[str] | None]:
    """Return the texts of some records and their second texts: none at all, or "" for a row that lacks its own."""
    pairs = rows["text_pair"]
    return rows["text"].to_list(), pairs.fill_null("").to_list() if pairs.count() else None


def batches_by_length(
    tokenizer: "PreTrainedTokenizerBase", rows: pl.DataFrame, batch_size: int, max_length: int
) -> Iterator[tuple[list[int], Any]]:
    """Yield (positions of the rows, padded tensors [b x s]) with the longest rows first."""
    encoded = encode(tokenizer, rows, truncation=True, max_length=max_length)
    order = sorted(range(rows.height), key=lambda at: -len(encoded["input_ids"][at]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = {name: [values[at] for at in chosen] for name, values in encoded.items()}
        yield chosen, tokenizer.pad(batch, return_tensors="pt")
