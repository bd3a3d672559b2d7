"""tokenize: texts to token ids, as the model reads them; labels to what it learns."""

import os
from typing import Any

import polars as pl

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params import TokenizeParams
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.pipeline.validation import most_rejecting
from stages.common.schemas import SPLITS, AugmentedRecords, Rejected, TokenizedRecords
from stages.tasks import load_task

SHOWN = 60  # characters of a label in a message


@stage("tokenize")
def main(run: Run[TokenizeParams]) -> None:
    """Encode each split; write what the targets stand for, and the length that texts were cut to."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from datasets import disable_caching
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
    encoding = {"max_length": max_length, **space, **task.wording(tokenizer, run.params)}
    report: dict[str, Any] = {**encoding}
    ledgers = []
    pairs = splits["train"]["text_pair"].count() > 0
    for name, rows in splits.items():
        table, rejected, further = task.encode(rows, tokenizer, {**encoding, "pairs": pairs}, run.params)
        if table.is_empty():
            why = most_rejecting(rejected.lazy())
            raise AttuneError(f"no row of {name} is left: {why}", "docs/chat.md says what each rule is for")
        table = TokenizedRecords.write(table, run.output(f"data/tokenized/{name}.parquet"))
        report[name] = {**_lengths(table), **further}
        ledgers.append(rejected)
    Rejected.write(pl.concat(ledgers).sort("id"), run.output("data/tokenized/rejected.parquet"))
    write_json(encoding, run.output("data/tokenized/encoding.json"))
    write_json(report, run.output("reports/tokenize.json"))
    counts = {name: sum(report[split][name] for split in SPLITS) for name in ("rows", "rows_truncated")}
    print("  {rows:,} rows, {rows_truncated:,} longer than {0} tokens and cut".format(max_length, **counts))
    for reason, count in pl.concat(ledgers)["reason"].value_counts(sort=True).head(5).iter_rows():
        print(f"  rejected {count:,}: {display(reason, 160)}")


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
