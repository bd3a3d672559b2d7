"""Records on their way from the sources to the tables: on disk, so that only a batch of them is in memory.

What has to be known of all rows before the first can be written (which ids repeat, how often there is each label, which
rows a limit keeps) is a number or two per row.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.readers.table import BATCH_BYTES, text_bytes
from stages.common.schemas import Rejected
from stages.ingest.records import STAGE, check_splits, clean_labels, hash_order, map_labels, with_text_ids

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
        number = pl.col("number").cast(pl.String)
        for records in self._read():
            numbered = records.join(self._numbers, on="row", how="left", maintain_order="left")
            ids = pl.when(number.is_null()).then("id").otherwise(pl.col("id") + "." + number)
            yield clean_labels(numbered.with_columns(id=ids).drop("row", "number"))

    def split(
        self, labels: Mapping[str, str] | None, limit: int | None, seed: int
    ) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Yield of each batch the rows that are kept, labels mapped, and the rejected ones.

        Args:
            labels: raw label to label; None: labels as they stand.
            limit: how many rows are kept at most, drawn by a seeded hash of their id; None: all.
            seed: of the hash.
        """
        last: np.uint64 | None = None  # in the order of the hash, of the rows that are kept
        if limit is not None:
            orders = np.concatenate([hash_order(kept, seed) for kept, _ in self.split(labels, None, seed)])
            last = np.partition(orders, limit - 1)[limit - 1] if limit < len(orders) else None
        for records in self.batches():
            kept, rejected = (records, Rejected.empty()) if labels is None else map_labels(records, labels)
            if last is not None:
                drawn = pl.Series(hash_order(kept, seed) <= last)
                left = Rejected.of(kept.filter(~drawn), STAGE, "not_drawn", f"ingest.limit keeps {limit} rows")
                kept, rejected = kept.filter(drawn), pl.concat([rejected, left])
            yield kept, rejected

    def _read(self) -> Iterator[pl.DataFrame]:
        for file in self._files:
            yield pl.read_ipc(file.read_bytes())

    @cached_property
    def _numbers(self) -> pl.DataFrame:
        """The rows (columns row and number) whose id an earlier one has, in the order of their other fields.

        Rows of one id have the same texts, but for a missing one and one that is "\\x1e": `texts` tells these apart.
        """
        ids = np.sort(np.concatenate(self._ids))
        repeated = pl.Series(np.unique(ids[1:][ids[1:] == ids[:-1]]), dtype=pl.UInt64).implode()
        texts = pl.col("text").is_not_null().cast(pl.Int8) * 2 + pl.col("text_pair").is_not_null().cast(pl.Int8)
        rows = [
            records.with_columns(pl.col("id").str.to_integer(base=16, dtype=pl.UInt64), texts=texts)
            .filter(pl.col("id").is_in(repeated))
            .drop("text", "text_pair")
            for records in self._read()
        ]
        ordered = pl.concat(rows).sort("id", "texts", "label", "group", "split", "timestamp", "source", "extra", "row")
        numbers = ordered.select("row", number=pl.int_range(1, pl.len() + 1).over("id"))
        return numbers.filter(pl.col("number") > 1)
