"""Texts to token ids, exactly those of the plain Hugging Face tokenizer."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from stages.common.schemas import Rejected

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 2000


def of_texts(
    rows: pl.DataFrame,
    targets: Callable[[Sequence[str]], list[Any]],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    pairs: bool,
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Return token ids of records or pairs with the targets of labels, no rejected rows, and nothing to report.

    What is over `max_length` tokens is cut off, and counted.
    """
    from datasets import Dataset

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = (batch["text"], [pair or "" for pair in batch["text_pair"]]) if pairs else (batch["text"],)
        kept = tokenizer(*texts, truncation=True, max_length=max_length, return_token_type_ids=True)
        whole = tokenizer(*texts, truncation=False, verbose=False)["input_ids"]
        lengths = [len(ids) for ids in kept["input_ids"]]
        return {
            "id": batch["id"],
            "input_ids": kept["input_ids"],
            "token_type_ids": kept["token_type_ids"],
            "labels": targets(batch["label"]),
            "length": lengths,
            "truncated": [len(ids) - length for ids, length in zip(whole, lengths, strict=True)],
        }

    texts = Dataset.from_polars(rows.select("id", "text", "text_pair", "label"))
    encoded = texts.map(encode, batched=True, batch_size=BATCH, remove_columns=texts.column_names, keep_in_memory=True)
    return pl.DataFrame(encoded.data.table.combine_chunks()), Rejected.empty(), {}
