"""The rows of a fold: those to train on, and those held out."""

from pathlib import Path

import polars as pl

from stages.common.errors import AttuneError
from stages.common.params import Params
from stages.common.schemas import AugmentedRecords, CleanRecords, TokenizedRecords

TOKENIZED = "data/tokenized/{}.parquet"


def checked_folds(params: Params) -> int:
    """Return how many folds there are.

    Raises:
        AttuneError: if params ask for none, or for a training that looks at no held-out rows.
    """
    if params.clean.split.folds < 2:
        raise AttuneError(
            "params.yaml: clean.split.folds is 0: the rows have no folds",
            "set it to 5 (say), then: dvc repro tokenize",
        )
    if params.finetune.train_on != "train":
        raise AttuneError(
            f"params.yaml: finetune.train_on is {params.finetune.train_on}: it would train on the held-out fold, too",
            "set it to train; --final sets it back afterwards",
        )
    return params.clean.split.folds


def read_rows(folds: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the tokenized rows outside test, and of each the fold and whether it is an original.

    Raises:
        AttuneError: if a table is missing, or they are not of the same data and number of folds.
    """
    names = ("data/clean/train.parquet", "data/clean/validation.parquet", "data/augmented/train.parquet")
    tokenized = [Path(TOKENIZED.format(name)) for name in ("train", "validation")]
    if missing := [path for path in (*map(Path, names), *tokenized) if not path.exists()]:
        raise AttuneError(f"{missing[0]} is missing", "make it: dvc repro tokenize")
    clean = pl.concat([CleanRecords.read(Path(name)).select("id", "fold") for name in names[:2]])
    children = AugmentedRecords.read(Path(names[2])).filter(pl.col("parent").is_not_null())
    of_children = children.select("id", "parent").join(clean.rename({"id": "parent"}), on="parent", how="left")
    placed = pl.concat(
        [
            clean.with_columns(original=pl.lit(True)),
            of_children.select("id", "fold", original=pl.lit(False)),
        ]
    )
    rows = pl.concat([TokenizedRecords.read(path) for path in tokenized])
    if set(rows["id"]) != set(placed["id"]) or placed["fold"].null_count() or placed["fold"].n_unique() != folds:
        raise AttuneError(
            f"data/ was made with other params than params.yaml (clean.split.folds: {folds})", "dvc repro tokenize"
        )
    return rows, placed


def split_fold(rows: pl.DataFrame, placed: pl.DataFrame, number: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows to train on and those held out.

    A row made by augmentation is held out with its parent, which means that it is left out: nobody is tested on it.
    """
    whole = rows.join(placed, on="id", how="left", maintain_order="left")
    here = pl.col("fold") == number
    return whole.filter(~here).select(rows.columns), whole.filter(here & pl.col("original")).select(rows.columns)
