"""tokenize: texts to token ids, exactly those of the plain Hugging Face tokenizer; labels to what the model learns."""

import os
from typing import Any

import polars as pl

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params import TokenizeParams
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.schemas import SPLITS, AugmentedRecords, TokenizedRecords
from stages.tasks import load_task

BATCH = 2000
SHOWN = 60  # characters of a label in a message


@stage("tokenize")
def main(run: Run[TokenizeParams]) -> None:
    """Encode each split; write what the targets stand for, and the length that texts were cut to."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from datasets import Dataset, disable_caching
    from transformers import AutoConfig, AutoTokenizer

    disable_caching()
    splits = {
        name: AugmentedRecords.read(run.input(f"data/{'augmented' if name == 'train' else 'clean'}/{name}.parquet"))
        for name in SPLITS
    }
    labels = splits["train"]["label"]
    if labels.n_unique() < 2:
        raise AttuneError(
            f"all {labels.len():,} training rows have the label {display(labels[0], SHOWN)}: there is nothing to learn",
            "add rows with other labels, or see in reports/clean.json where they have gone",
        )
    task = load_task(run.all_params.task)
    space = task.label_space(labels)
    if "labels" in space:
        run.all_params.evaluate.behaviour.check_labels(list(space["labels"]))  # before the training, not after it
    base = run.input("models/base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    positions = getattr(AutoConfig.from_pretrained(base), "max_position_embeddings", None)
    # RoBERTa and its kin keep some positions for themselves; their tokenizer knows what is left.
    longest = min(positions or tokenizer.model_max_length, tokenizer.model_max_length)
    max_length = min(run.params.max_length, longest)
    if max_length < run.params.max_length:
        print(f"  warning: the model takes {longest} tokens: texts are cut there, not at {run.params.max_length}")
    pairs = splits["train"]["text_pair"].count() > 0

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = (batch["text"], [pair or "" for pair in batch["text_pair"]]) if pairs else (batch["text"],)
        kept = tokenizer(*texts, truncation=True, max_length=max_length, return_token_type_ids=True)
        whole = tokenizer(*texts, truncation=False, verbose=False)["input_ids"]
        lengths = [len(ids) for ids in kept["input_ids"]]
        return {
            "id": batch["id"],
            "input_ids": kept["input_ids"],
            "token_type_ids": kept["token_type_ids"],
            "labels": task.targets(batch["label"], space),
            "length": lengths,
            "truncated": [len(ids) - length for ids, length in zip(whole, lengths, strict=True)],
        }

    encoding = {"max_length": max_length, **space}
    report: dict[str, Any] = {**encoding}
    for name, rows in splits.items():
        texts = Dataset.from_polars(rows.select("id", "text", "text_pair", "label"))
        encoded = texts.map(
            encode, batched=True, batch_size=BATCH, remove_columns=texts.column_names, keep_in_memory=True
        )
        table = pl.DataFrame(encoded.data.table.combine_chunks())
        table = TokenizedRecords.write(table, run.output(f"data/tokenized/{name}.parquet"))
        report[name] = _lengths(table)
    write_json(encoding, run.output("data/tokenized/encoding.json"))
    write_json(report, run.output("reports/tokenize.json"))
    cut = sum(report[name]["rows_truncated"] for name in SPLITS)
    print(f"  {sum(rows.height for rows in splits.values()):,} rows, {cut:,} longer than {max_length} tokens and cut")


def _lengths(table: pl.DataFrame) -> dict[str, object]:
    whole = table["length"] + table["truncated"]
    cut = table.filter(pl.col("truncated") > 0).height
    return {
        "rows": table.height,
        "tokens": int(table["length"].sum()),
        "length_median": whole.median(),
        "length_p95": whole.quantile(0.95, "nearest"),
        "length_max": whole.max(),
        "rows_truncated": cut,
        "share_truncated": round(cut / table.height, 4),
    }


if __name__ == "__main__":
    main()
