"""Which rows are in which batch: a pure function of lengths, seed and epoch, for any number of processes.

Batches hold rows of similar lengths, so that little of them is padding. As in Hugging Face's `LengthGroupedSampler`,
rows are shuffled, dealt out to portions of many batches and sorted by length within each. Here the batches are then
shuffled too; with several processes, each takes its share of the rows of every batch.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from torch.utils.data import Dataset, Sampler

from stages.common.params import FinetuneParams

PORTION = 50  # batches that are sorted together


class TokenRows(Dataset):
    """Rows of token ids, by number."""

    def __init__(self, rows: pl.DataFrame, columns: list[str]) -> None:
        """Take `columns` (lists of token ids and the like) and `labels` of tokenized rows."""
        self._columns = {name: rows[name].to_list() for name in (*columns, "labels")}
        self.lengths = rows["length"].to_numpy()  # [n] tokens

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < 0:  # ~index stands in, and has nothing to learn
            return {name: values[~index] for name, values in self._columns.items() if name != "labels"}
        return {name: values[index] for name, values in self._columns.items()}


class LengthBatches(Sampler[list[int]]):
    """The batches of an epoch, as lists of row numbers."""

    def __init__(
        self, lengths: np.ndarray, params: FinetuneParams, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        """Prepare batches of rows with these lengths ([n] tokens) for one process out of several.

        Batches whose padded size is over `max_tokens_per_batch` are cut smaller, down to one row a process. All rows of
        an epoch are sorted together then, so that every epoch has as many batches.
        """
        self._lengths, self._seed, self._by_length = lengths, seed, params.group_by_length
        self._size = params.per_device_train_batch_size * world_size
        self._max_tokens = (params.max_tokens_per_batch or 0) * world_size
        self._portion = len(lengths) if self._max_tokens else self._size * PORTION
        self._rank, self._world_size = rank, world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, from 0."""
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._lengths))
        if not self._by_length:
            self.batches = np.split(order, range(self._size, len(order), self._size))
            return
        batches: list[np.ndarray] = []
        for portion in np.split(order, range(self._portion, len(order), self._portion)):
            longest_first = portion[np.argsort(-self._lengths[portion], kind="stable")]
            batches.extend(self._within_budget(longest_first))
        # The longest batch comes first: whoever runs out of memory shall do so at once.
        first = max(range(len(batches)), key=lambda number: len(batches[number]) * self._lengths[batches[number][0]])
        rest = [batches[number] for number in rng.permutation(len(batches)) if number != first]
        self.batches = [batches[first], *rest]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            # Fewer rows than processes: those without one work too, or the others would wait for them forever.
            yield batch[self._rank :: self._world_size].tolist() or [~int(batch[0])]

    def _within_budget(self, longest_first: np.ndarray) -> Iterator[np.ndarray]:
        start = 0
        while start < len(longest_first):
            size = self._size
            if self._max_tokens:
                fitting = self._max_tokens // int(self._lengths[longest_first[start]])
                size = min(size, max(fitting // self._world_size, 1) * self._world_size)
            yield longest_first[start : start + size]
            start += size
