"""augment: more training rows out of training rows; validation and test are read only to keep clear of them."""

import random
from hashlib import sha256

import polars as pl

from stages.augment.methods import METHODS, rewrite
from stages.common.near_duplicates import NearDuplicateIndex
from stages.common.params import AugmentParams
from stages.common.schemas import AugmentedRecords, CleanRecords
from stages.common.stage import Run, stage, write_json

SHINGLE_SIZE, NUM_PERM = 5, 128


@stage("augment")
def main(run: Run[AugmentParams]) -> None:
    """Apply each method with a share above zero, drop what equals a known or held-out text."""
    train = CleanRecords.read(run.input("data/clean/train.parquet"))
    held_out = pl.concat(
        [CleanRecords.read(run.input(f"data/clean/{name}.parquet")) for name in ("validation", "test")]
    )
    made = pl.concat([_originals(train).clear(), *(_new_rows(train, name, run) for name in METHODS)])
    fresh = made.filter(~pl.col("text").is_in(train["text"].implode())).unique(
        "text", keep="first", maintain_order=True
    )
    kept = _clear_of(fresh, held_out, run.params.leak_threshold)

    AugmentedRecords.write(pl.concat([_originals(train), kept]), run.output("data/augmented/train.parquet"))
    report = {
        "rows_in": train.height,
        "rows_made": made.height,
        "dropped_as_equal_to_a_training_row": made.height - fresh.height,
        "dropped_as_near_a_held_out_row": fresh.height - kept.height,
        "rows_added": kept.height,
        "added_by_method": dict(kept["method"].value_counts().sort("method").iter_rows()),
        "rows_out": train.height + kept.height,
    }
    write_json(report, run.output("reports/augment.json"))
    print(f"  {train.height:,} rows in, {kept.height:,} added, {made.height - kept.height:,} of those made dropped")


def _originals(train: pl.DataFrame) -> pl.DataFrame:
    nothing = pl.lit(None, pl.String)
    return train.with_columns(parent=nothing, method=nothing)


def _new_rows(train: pl.DataFrame, method: str, run: Run[AugmentParams]) -> pl.DataFrame:
    """Make `share * rows` new rows; each draws from a generator of its own, so that no row depends on another."""
    settings = getattr(run.params, method)
    count = round(settings.share * train.height)
    chosen = sorted(random.Random(f"{run.seed} {method}").sample(range(train.height), count))
    parents = train[chosen]

    def new_text(parent: dict[str, str]) -> str:
        return rewrite(
            parent["text"], method, settings.probability, random.Random(f"{run.seed} {method} {parent['id']}")
        )

    texts = [new_text(parent) for parent in parents.select("id", "text").iter_rows(named=True)]
    ids = [sha256(f"{method} {parent}".encode()).hexdigest()[:16] for parent in parents["id"]]
    return parents.with_columns(
        id=pl.Series(ids, dtype=pl.String),
        text=pl.Series(texts, dtype=pl.String),
        parent=parents["id"],
        method=pl.lit(method),
    )


def _clear_of(rows: pl.DataFrame, held_out: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Drop the rows that equal or nearly equal a validation or test text."""
    if rows.is_empty():
        return rows
    index = NearDuplicateIndex(held_out["text"].to_list(), threshold, SHINGLE_SIZE, NUM_PERM)
    return rows.filter(pl.Series([not index.matches(text) for text in rows["text"]], dtype=pl.Boolean))


if __name__ == "__main__":
    main()
