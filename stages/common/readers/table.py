"""What every reader of a table offers."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import polars as pl

from stages.common.errors import AttuneError

ROWS = 50_000  # of a batch
BATCH_BYTES = 32 << 20  # of texts, about, at which a batch ends even if it has fewer rows


class Table:
    """An open table.

    Attributes:
        origin: what messages call it.
        columns: the names; of JSON lines, whose rows have keys of their own, those of the rows read so far.
        fixed: whether all names are known before the first row is read.
        rows: how many there are, where that is known.
        share: how much of the file has been read, where that is known.
    """

    fixed = True
    rows: int | None = None
    share: Callable[[], float] | None = None

    def __init__(self, origin: str, columns: list[str]) -> None:
        self.origin, self.columns = origin, columns

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """Yield the rows with these columns, at most `size` at a time; a table without rows has one empty batch.

        Raises:
            AttuneError: if a row is damaged, with its line where there are lines.
        """
        raise NotImplementedError


def check_unique(names: Sequence[str], where: str) -> None:
    """Raise AttuneError if two columns have one name."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise AttuneError(f"{where}: the column {twice[0]!r} is there twice", "rename one of them")
