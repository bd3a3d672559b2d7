"""Records on their way from the sources to the tables: on disk, so that only a batch of them is in memory.

What has to be known of all rows before the first can be written (which ids repeat, how often there is each label, which
rows a limit keeps) is a number or two per row.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.readers.table import BATCH_BYTES
from stages.common.readers.values import text_bytes
from stages.common.schemas import Rejected
from stages.ingest.records import (
    STAGE,
    check_splits,
    clean_labels,
    hash_order,
    map_labels,
    number_repeats,
    with_text_ids,
)

GROUP_ROWS = 100_000  # of a row group, unless their texts are long


class Spool:
    """Records, added batch by batch and then read as often as needed.

    Args:
        folder: where the batches go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = self.bytes = 0
        self.labels: Counter[str] = Counter()  # as they stand in the data, but for blanks around them
        self._files: list[Path] = []
        self._ids: list[np.ndarray] = []  # uint64, as the hex digits of the ids
        self._numbers: pl.DataFrame | None = None

    @property
    def group_rows(self) -> int:
        """Rows of a row group of which the texts fill about two batches."""
        return max(1, min(GROUP_ROWS, 2 * BATCH_BYTES * self.rows // max(self.bytes, 1)))

    def add(self, records: pl.DataFrame) -> None:
        """Add a batch.

        Raises:
            AttuneError: if an official split is none.
        """
        records = check_splits(with_text_ids(records)).with_row_index("row", self.rows)
        self._files.append(self.folder / str(len(self._files)))
        records.write_ipc(self._files[-1], compression="lz4")
        self._ids.append(records["id"].str.to_integer(base=16, dtype=pl.UInt64).to_numpy())
        self.labels.update(dict(clean_labels(records)["label"].drop_nulls().value_counts().iter_rows()))
        self.rows += records.height
        self.bytes += text_bytes(records.drop("row"))

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the records; rows with the same texts have the ids `9f86d081884c7d65`, `9f86d081884c7d65.2`, …"""
        if self._numbers is None:
            self._numbers = self._number()
        number = pl.col("number").cast(pl.String)
        for records in self._read():
            numbered = records.join(self._numbers, on="row", how="left", maintain_order="left")
            ids = pl.when(number.is_null()).then("id").otherwise(pl.col("id") + "." + number)
            yield clean_labels(numbered.with_columns(id=ids).drop("row", "number"))

    def _read(self) -> Iterator[pl.DataFrame]:
        for file in self._files:
            yield pl.read_ipc(file.read_bytes())

    def _number(self) -> pl.DataFrame:
        """Return the rows whose id an earlier one has, with their numbers from 2."""
        ids = np.sort(np.concatenate(self._ids))
        repeated = pl.Series(np.unique(ids[1:][ids[1:] == ids[:-1]]), dtype=pl.UInt64).implode()
        texts = pl.col("text").is_not_null().cast(pl.Int8) * 2 + pl.col("text_pair").is_not_null().cast(pl.Int8)
        rows = [
            records.with_columns(pl.col("id").str.to_integer(base=16, dtype=pl.UInt64), texts=texts)
            .filter(pl.col("id").is_in(repeated))
            .drop("text", "text_pair")
            for records in self._read()
        ]
        return number_repeats(pl.concat(rows)).filter(pl.col("number") > 1)


class Selection:
    """Which records of a spool are kept, and which are rejected.

    Args:
        spool: all of them.
        labels: raw label to label; None: labels as they stand.
        limit: how many rows are kept at most, drawn by a seeded hash of their id; None: all.
        seed: of the hash.
    """

    def __init__(self, spool: Spool, labels: Mapping[str, str] | None, limit: int | None, seed: int) -> None:
        self.spool, self.labels, self.limit, self.seed = spool, labels, limit, seed
        self.kept, self.kept_labels, self.reasons = 0, Counter[str](), Counter[str]()
        mapped = spool.rows
        if labels is not None:
            mapped -= sum(count for label, count in spool.labels.items() if label not in labels)
        self._last: np.uint64 | None = None  # in the order of the hash, of the rows that are kept
        if limit is not None and limit < mapped:
            orders = np.concatenate([hash_order(mapped, seed) for mapped, _ in self._mapped()])
            self._last = np.partition(orders, limit - 1)[limit - 1]

    def records(self) -> Iterator[pl.DataFrame]:
        """Yield the rows that are kept, and count them."""
        for mapped, _ in self._mapped():
            kept = mapped if self._last is None else mapped.filter(self._drawn(mapped))
            self.kept += kept.height
            self.kept_labels.update(dict(kept["label"].drop_nulls().value_counts().iter_rows()))
            yield kept

    def rejected(self) -> Iterator[pl.DataFrame]:
        """Yield the rejected rows, those with unmapped labels first, and count them."""
        if self.labels is not None:
            for _, unmapped in self._mapped():
                yield self._counted(unmapped)
        if self._last is not None:
            for mapped, _ in self._mapped():
                left = mapped.filter(~self._drawn(mapped))
                yield self._counted(Rejected.of(left, STAGE, "not_drawn", f"ingest.limit keeps {self.limit} rows"))

    def _mapped(self) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        for records in self.spool.batches():
            yield map_labels(records, self.labels)

    def _drawn(self, records: pl.DataFrame) -> pl.Series:
        return pl.Series(hash_order(records, self.seed) <= self._last)

    def _counted(self, rejected: pl.DataFrame) -> pl.DataFrame:
        self.reasons.update(dict(rejected["reason"].value_counts().iter_rows()))
        return rejected
