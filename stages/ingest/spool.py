"""Records on disk between the sources and the tables, so that only a batch of them is in memory.

What has to be known of all rows before the first can be written (which ids repeat, how often there is each label, which
rows a limit keeps) is a number or two per row.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.digests import seeded_hash
from stages.common.display import display
from stages.common.readers.streams import BATCH_BYTES
from stages.common.schemas import Rejected
from stages.ingest.records import FIELDS, WIDTH
from stages.tasks.base import Task

STAGE = "ingest"
GROUP_ROWS = 100_000  # of a row group, unless their texts are long
BARE_LABEL = pl.col("label").str.strip_chars().replace("", None)


class Spool:
    """Records in the files of a folder, added batch by batch and then read as often as needed."""

    def __init__(self, folder: Path, task: Task) -> None:
        """Begin a spool in an empty folder."""
        self.folder, self.task = folder, task
        self.rows = self._bytes = 0
        self.names: Counter[str] = Counter()  # in the labels, as they stand in the data, but for blanks around them
        self._files: list[Path] = []
        self._ids: list[np.ndarray] = []  # uint64, as the hex digits of the ids

    @property
    def group_rows(self) -> int:
        """Rows of a row group, which is in memory while it is written: their texts fill at most two batches."""
        return max(1, min(GROUP_ROWS, 2 * BATCH_BYTES * self.rows // max(self._bytes, 1)))

    def add(self, records: pl.DataFrame) -> None:
        """Add a batch of `read_records`.

        An id is made of a row's texts alone, so that it outlives a new label, order of rows or source.
        """
        # "\x1f" between the two and "\x1e" for none keep ("ab", none), ("a", "b") and ("a", "") apart.
        texts = pl.concat_str(pl.col("text").fill_null("\x1e"), pl.col("text_pair").fill_null("\x1e"), separator="\x1f")
        digest = texts.map_elements(lambda text: sha256(text.encode()).hexdigest()[:16], return_dtype=pl.String)
        records = records.with_columns(id=digest)
        labels = records.filter(pl.col("left_out").is_null()).select(BARE_LABEL)["label"]
        for label, count in labels.drop_nulls().value_counts().iter_rows():
            self.names.update(dict.fromkeys(self.task.names(label), count))
        self._ids.append(records["id"].str.to_integer(base=16, dtype=pl.UInt64).to_numpy())
        self._bytes += int(records["text"].str.len_bytes().cast(pl.Int64).sum())
        self._files.append(self.folder / str(len(self._files)))
        records.with_row_index("row", self.rows).write_ipc(self._files[-1], compression="lz4")
        self.rows += records.height

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the records; rows with the same texts have the ids `9f86d081884c7d65`, `9f86d081884c7d65.2`, …"""
        number = pl.col("number").cast(pl.String)
        for file in self._files:
            records = pl.read_ipc(file.read_bytes())
            numbered = records.join(self._numbers, on="row", how="left", maintain_order="left")
            ids = pl.when(number.is_null()).then("id").otherwise(pl.col("id") + "." + number)
            yield numbered.with_columns(BARE_LABEL, id=ids).drop("row", "number")

    def split(
        self, names: Mapping[str, str | None], labels: Mapping[str, str] | None, limit: int | None, seed: int
    ) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Yield of each batch the rows that are kept, labels mapped, and the rejected ones.

        Rows with no label at all are kept: `clean` rejects them as unlabelled. `names` are those of all labels
        (`label_names`), `labels` map them on. A `limit` counts what is kept, drawn by a seeded hash of the ids.
        """

        def order(records: pl.DataFrame) -> np.ndarray:  # [n] uint64
            return np.array([seeded_hash(seed, id) for id in records["id"]], dtype=np.uint64)

        last: np.uint64 | None = None  # in the order of the hash, of the rows that are kept
        if limit is not None:
            orders = np.concatenate([order(kept) for kept, _ in self.split(names, labels, None, seed)])
            last = np.partition(orders, limit - 1)[limit - 1] if limit < len(orders) else None
        mapped = {raw: name and (labels or {}).get(name, name) for raw, name in names.items()}
        others = {raw for raw, name in names.items() if name and labels is not None and name not in labels}
        read = pl.col("left_out").is_null()
        for batch in self.batches():
            targets = self._targets(batch.filter(read)["label"], mapped, others)
            records = batch.join(targets, on="label", how="left", maintain_order="left")
            unmapped = read & pl.col("unmapped").is_not_null()
            kept = records.filter(read, ~unmapped)
            rejected = [
                Rejected.of(records.filter(~read), STAGE, pl.col("rule"), pl.col("left_out")),
                Rejected.of(records.filter(unmapped), STAGE, "unmapped_label", pl.col("unmapped")),
            ]
            if last is not None:
                drawn = pl.Series(order(kept) <= last)
                rejected.append(
                    Rejected.of(kept.filter(~drawn), STAGE, "not_drawn", f"ingest.limit keeps {limit} rows")
                )
                kept = kept.filter(drawn)
            yield kept.with_columns(label="target"), pl.concat(rejected)

    def _targets(self, labels: pl.Series, names: Mapping[str, str | None], others: Collection[str]) -> pl.DataFrame:
        """Return each label with its `target`, mapped names in it, or why there is none: it is `unmapped`."""
        table: dict[str, list[str | None]] = {"label": [], "target": [], "unmapped": []}
        for label in labels.drop_nulls().unique():
            held = self.task.names(label)
            wrong = [display(name, WIDTH) for name in held if name in others]
            table["label"].append(label)
            table["target"].append(self.task.renamed(label, names) if held and not wrong else label)
            table["unmapped"].append(f"label {wrong[0]} is not in ingest.labels" if wrong else None)
        return pl.DataFrame(table, schema=dict.fromkeys(table, pl.String))

    @cached_property
    def _numbers(self) -> pl.DataFrame:
        """The rows (columns row and number) whose id, and so texts, an earlier one has.

        They are in the order of their other fields. Those that are left out come last: no other id depends on them.
        """
        ids = np.sort(np.concatenate(self._ids))
        repeated = pl.Series(np.unique(ids[1:][ids[1:] == ids[:-1]]), dtype=pl.UInt64).implode()
        rows = [
            pl.read_ipc(file.read_bytes())
            .with_columns(pl.col("id").str.to_integer(base=16, dtype=pl.UInt64))
            .filter(pl.col("id").is_in(repeated))
            .drop("text", "text_pair")
            for file in self._files
        ]
        ordered = pl.concat(rows).sort("id", "left_out", *FIELDS[2:], "row")
        numbers = ordered.select("row", number=pl.int_range(1, pl.len() + 1).over("id"))
        return numbers.filter(pl.col("number") > 1)
