"""Near-duplicate texts: MinHash LSH finds candidates, the exact Jaccard similarity of shingles decides.

Broder 1997, "On the resemblance and containment of documents"; MinHash comes from rensa. Whatever is done per text or
per pair is done for many at once in numpy; benchmarks/cleaning.py has the figures.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import polars as pl
from rensa import RMinHash

SEED = 1  # of the permutations; not the pipeline's seed, so that what counts as a duplicate never changes with it
NONE = -1

TEXTS = 10_000  # sketched at once: rensa hands signatures over as Python numbers, 50 MB of them for so many
CHARACTERS = 2_000_000  # hashed at once
PAIRS = 4_000_000  # looked at at once
MANY = 200_000  # texts from which processes pay
PROCESSES = min(4, os.cpu_count() or 1)  # each takes some 150 MB
THREADS = min(8, os.cpu_count() or 1)  # each takes some 50 MB
TRIES = ((0, 1), (1, 8), (8, 2**32))  # candidates of a text that are compared together, the likeliest first
MISS = 0.001  # chance that a pair at the threshold shares no band
DOUBT = 4.5  # standard deviations below the threshold from which a signature rules a pair out
HASH_BITS = np.uint64(48)  # of a shingle, where the upper 16 name the pair: one pair in 10^9 is mistaken, by a shingle

Bits = np.ndarray  # whole numbers as numpy holds them; shapes and dtypes stand in the docstrings


def shingles(text: str, size: int) -> set[str]:
    """Return the character `size`-grams of a text, without regard to case; a shorter text is its own shingle."""
    folded = text.casefold()
    return {folded[start : start + size] for start in range(max(1, len(folded) - size + 1))}


def jaccard(one: set[str], other: set[str]) -> float:
    """Return the share of shingles that two texts have in common, from 0.0 to 1.0."""
    return len(one & other) / len(one | other)


def thin_out(texts: pl.Series, threshold: float, shingle_size: int, num_perm: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep each text that nearly equals no kept one before it.

    The same as going through the texts one by one, for all of them at once: a text that is the first undecided one in
    each of its buckets stays, and puts out those behind it that nearly equal it; then come the next ones. Only kept
    texts are compared with, so that thousands of texts from one template cost no more than as many others, unless they
    stay under the threshold: then each is compared with each.

    Args:
        texts: strings, no nulls, in the order in which they have precedence.
        threshold: Jaccard similarity from which two texts match.
        shingle_size: characters in a shingle.
        num_perm: MinHash permutations.

    Returns:
        twin: int64, shape (len(texts),): the kept text that this one nearly equals, -1 where it is kept itself.
        similarity: float64, shape (len(texts),): their Jaccard similarity, 0.0 where there is none.
    """
    twin, similarity = np.full(len(texts), NONE), np.zeros(len(texts))
    sketch = _sketch(texts, shingle_size, num_perm, threshold, SEED)
    bucket, row = _buckets(sketch.take_keys())
    while len(bucket):
        first = np.concatenate([[True], bucket[1:] != bucket[:-1]])
        blocked = np.zeros(len(texts), dtype=bool)
        blocked[row[~first]] = True
        kept = ~blocked[row]
        # Each bucket that a kept text leads: that text, and all behind it.
        leader = np.repeat(row[first], np.diff(np.append(np.flatnonzero(first), len(bucket))))
        led = ~blocked[leader] & ~first
        pairs = _distinct_values(row[led].astype(np.int64) << 32 | leader[led])
        _match(pairs, sketch, sketch, texts, texts, threshold, twin, similarity)
        open_ = ~kept & (twin[row] == NONE)
        bucket, row = _without_loners(bucket[open_], row[open_])
    return twin, similarity


def nearest_among(
    texts: pl.Series, others: pl.Series, threshold: float, shingle_size: int, num_perm: int, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Find for each text one of the others that nearly equals it, the likeliest first.

    Returns:
        position: int64, shape (len(texts),): where in `others` the match stands, -1 where there is none.
        similarity: float64, shape (len(texts),): exact Jaccard similarity, 0.0 where there is none.
    """
    position, similarity = np.full(len(texts), NONE), np.zeros(len(texts))
    if texts.is_empty() or others.is_empty():
        return position, similarity
    own = _sketch(texts, shingle_size, num_perm, threshold, seed)
    their = _sketch(others, shingle_size, num_perm, threshold, seed)
    for pairs in _in_common(own.take_keys(), their.take_keys()):
        _match(pairs, own, their, texts, others, threshold, position, similarity)
    return position, similarity


@dataclass
class _Sketch:
    """What stays of texts: `keys` uint32 (bands, texts); `low` uint8 (texts, num_perm), the signatures' lowest bits."""

    keys: list[Bits]
    low: Bits
    shingle_size: int

    def take_keys(self) -> list[Bits]:
        """Hand over the keys, which are not kept."""
        keys, self.keys = self.keys, []
        return keys


def _sketch(texts: pl.Series, size: int, num_perm: int, threshold: float, seed: int) -> _Sketch:
    rows = _rows_per_band(threshold, num_perm)
    bands = num_perm // rows
    keys = [np.empty(len(texts), dtype=np.uint32) for _ in range(bands)]
    low = np.empty((len(texts), num_perm), dtype=np.uint8)
    portions = list(_portions(texts.str.len_bytes().to_numpy(), TEXTS))
    sign = partial(_signed, size=size, num_perm=num_perm, rows=rows, seed=seed)
    with _mapping(len(texts)) as mapped:
        for here, (their_keys, their_low) in zip(
            portions, mapped(sign, (texts[here].to_list() for here in portions)), strict=True
        ):
            low[here] = their_low
            for key, their_key in zip(keys, their_keys, strict=True):
                key[here] = their_key
    return _Sketch(keys, low, size)


def _signed(texts: list[str], size: int, num_perm: int, rows: int, seed: int) -> tuple[Bits, Bits]:
    """Return the keys (uint32, (num_perm // rows, len(texts))) and the lowest bits of the signatures."""
    hashes, offsets = _shingle_hashes(texts, size)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, num_perm, seed)
    signatures = np.array(matrix.to_rows(), dtype=np.uint32)
    weights = _mixed(np.arange(1, rows + 1, dtype=np.uint64)) | np.uint64(1)
    bands = signatures[:, : num_perm // rows * rows].reshape(len(texts), -1, rows)
    keys = _mixed((bands * weights).sum(axis=2)) >> np.uint64(32)
    return keys.T.astype(np.uint32), (signatures & 0xFF).astype(np.uint8)  # b-bit MinHash (Li & König 2010)


@contextmanager
def _mapping(count: int) -> Iterator[Callable[..., Iterator[tuple[Bits, Bits]]]]:
    """Give `map`, or its like over processes where so many texts pay for starting them.

    Signatures come from rensa as Python numbers, which threads would have to wait for each other to handle.
    """
    if count < MANY or PROCESSES == 1:
        yield map
    else:
        with get_context("spawn").Pool(PROCESSES) as pool:
            yield pool.imap


def _rows_per_band(threshold: float, num_perm: int) -> int:
    """Return the most rows a band can have while hardly a pair at the threshold shares none.

    Bands of r rows make a pair of similarity s a candidate with probability 1 - (1 - s^r)^(bands).
    """
    fits = [r for r in range(1, num_perm + 1) if (1 - threshold**r) ** (num_perm // r) <= MISS]
    return max(fits, default=1)


def _shingle_hashes(texts: list[str], size: int) -> tuple[Bits, Bits]:
    """Return the hash of every shingle of the texts, one text after the other, and where each text begins.

    Returns:
        hashes: uint64, one per position of a shingle (equal shingles of a text are there more than once).
        offsets: uint64, shape (len(texts) + 1,).
    """
    folded = [text.casefold().ljust(size, "\0") for text in texts]  # a shorter text is its own shingle
    lengths = np.fromiter(map(len, folded), dtype=np.int64, count=len(folded))
    points = np.frombuffer("".join(folded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    windows = len(points) - size + 1
    hashes = np.zeros(max(windows, 0), dtype=np.uint64)
    for at in range(size):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += points[at : at + windows]
    counts = lengths - size + 1
    offsets = np.concatenate([[0], np.cumsum(counts)])
    starts = np.cumsum(lengths) - lengths
    inside = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)  # no window over two texts
    return _mixed(hashes[inside]), offsets.astype(np.uint64)


def _mixed(values: Bits) -> Bits:
    """Spread every bit over all 64 (the finalizer of SplitMix64; Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _buckets(keys: list[Bits]) -> tuple[Bits, Bits]:
    """Return, over all bands, which texts share a key: the bucket (ascending) and the row of each, int32 both."""
    buckets, rows, numbered = [np.empty(0, np.int32)], [np.empty(0, np.int32)], 0
    while keys:
        key = keys.pop()
        tagged = np.sort(key.astype(np.uint64) << np.uint64(32) | np.arange(len(key), dtype=np.uint64))
        row = (tagged & np.uint64(0xFFFFFFFF)).astype(np.int32)
        shared, row = _without_loners((tagged >> np.uint64(32)).astype(np.uint32), row)
        number = np.cumsum(np.concatenate([[False], shared[1:] != shared[:-1]]), dtype=np.int32)[: len(shared)]
        buckets.append(number + numbered)
        rows.append(row)
        numbered += int(number[-1]) + 1 if len(number) else 0
    return np.concatenate(buckets), np.concatenate(rows)


def _without_loners(bucket: Bits, row: Bits) -> tuple[Bits, Bits]:
    """Leave out the buckets that hold one text."""
    same = bucket[1:] == bucket[:-1]
    shared = np.zeros(len(bucket), dtype=bool)
    shared[1:] |= same
    shared[:-1] |= same
    return bucket[shared], row[shared]


def _in_common(own: list[Bits], their: list[Bits]) -> Iterator[Bits]:
    """Yield the pairs (text in the upper, other in the lower 32 bits) that share a key, all of a text's together."""
    orders = [np.argsort(key, kind="stable") for key in their]
    spans = [
        (np.searchsorted(key[order], mine, "left"), np.searchsorted(key[order], mine, "right"))
        for mine, key, order in zip(own, their, orders, strict=True)
    ]
    load = np.cumsum(np.sum([right - left for left, right in spans], axis=0))
    start = 0
    while start < len(load):
        done = load[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(load, done + PAIRS, "right")))
        found = []
        for (left, right), order in zip(spans, orders, strict=True):
            counts = right[start:end] - left[start:end]
            text = np.repeat(np.arange(start, end), counts)
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            found.append(text << 32 | order[np.repeat(left[start:end], counts) + within])
        yield _distinct_values(np.concatenate(found))
        start = end


def _estimate(text: Bits, other: Bits, own: _Sketch, their: _Sketch) -> np.ndarray:
    """Return the similarity that the signatures tell, float64; bits that are equal by chance are taken off."""
    agree = np.empty(len(text))
    step = max(1, 16_000_000 // own.low.shape[1])
    for start in range(0, len(text), step):
        here = slice(start, start + step)
        agree[here] = (own.low[text[here]] == their.low[other[here]]).mean(axis=1)
    return (agree - 1 / 256) / (1 - 1 / 256)


def _least(threshold: float, num_perm: int) -> float:
    return threshold - DOUBT * float(np.sqrt(threshold * (1 - threshold) / num_perm)) - 1e-9


def _match(
    pairs: Bits,
    own: _Sketch,
    their: _Sketch,
    texts: pl.Series,
    others: pl.Series,
    threshold: float,
    position: np.ndarray,
    similarity: np.ndarray,
) -> None:
    """Note in `position` and `similarity` for each text one of its candidates that nearly equals it.

    The likeliest candidate is compared first: where it matches, the others need no exact comparison.

    Args:
        pairs: int64, each a text in its upper and another in its lower 32 bits.
    """
    text, other = pairs >> 32, pairs & 0xFFFFFFFF
    estimate = _estimate(text, other, own, their)
    order = np.lexsort((other, -estimate, text))
    order = order[estimate[order] >= _least(threshold, own.low.shape[1])]
    text, other = text[order], other[order]
    place = np.arange(len(text)) - np.searchsorted(text, text)
    for start, end in TRIES:
        now = (place >= start) & (place < end) & (position[text] == NONE)
        if not now.any():
            continue
        found = _compared(text[now], other[now], texts, others, own.shingle_size)
        near = found >= threshold
        _take_best(position, similarity, text[now][near], other[now][near], found[near])


def _compared(text: Bits, other: Bits, texts: pl.Series, others: pl.Series, size: int) -> np.ndarray:
    """Return the exact Jaccard similarity of each pair, float64."""
    similarity = np.empty(len(text))

    def fill(here: slice) -> None:
        own, own_pair = _distinct(texts.gather(text[here]).to_list(), size)
        their, their_pair = _distinct(others.gather(other[here]).to_list(), size)
        pairs = len(text[here])
        both = np.sort(np.concatenate([own, their]))
        common = np.bincount(both[1:][both[1:] == both[:-1]] >> HASH_BITS, minlength=pairs)
        sizes = np.bincount(own_pair, minlength=pairs) + np.bincount(their_pair, minlength=pairs)
        similarity[here] = common / (sizes - common)

    _for_each(fill, _portions(_bytes(texts, text) + _bytes(others, other), 0xFFFF))
    return similarity


def _for_each(fill: Callable[[slice], None], portions: Iterator[slice]) -> None:
    """Fill each portion in a thread of its own: numpy and rensa work outside of Python's lock most of the time."""
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(fill, portions):
            pass


def _bytes(texts: pl.Series, rows: Bits) -> Bits:
    return texts.gather(rows).str.len_bytes().to_numpy().astype(np.int64)


def _portions(lengths: Bits, most: int) -> Iterator[slice]:
    """Part texts of these lengths into portions of at most so many texts and, one text alone excepted, CHARACTERS."""
    ends = np.cumsum(lengths, dtype=np.int64)
    start = 0
    while start < len(ends):
        done = ends[start - 1] if start else 0
        end = min(start + most, max(start + 1, int(np.searchsorted(ends, done + CHARACTERS, "right"))))
        yield slice(start, end)
        start = end


def _distinct(texts: list[str], size: int) -> tuple[Bits, Bits]:
    """Return the distinct shingles of each text, its number in the upper 16 bits; and the numbers alone."""
    hashes, offsets = _shingle_hashes(texts, size)
    number = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(offsets).astype(np.int64))
    tagged = _distinct_values(number << HASH_BITS | hashes >> (np.uint64(64) - HASH_BITS))
    return tagged, (tagged >> HASH_BITS).astype(np.int64)


def _distinct_values(values: Bits) -> Bits:
    """Return the sorted distinct values; `values` is sorted in place (numpy's `unique` hashes, many times slower)."""
    values.sort()
    return values[np.concatenate([[True], values[1:] != values[:-1]])] if len(values) else values


def _take_best(match: np.ndarray, similarity: np.ndarray, text: Bits, other: Bits, found: np.ndarray) -> None:
    """Note for each text the most similar of its matches; of equally similar ones the first."""
    order = np.lexsort((other, -found, text))
    text, first = np.unique(text[order], return_index=True)
    better = found[order][first] > similarity[text]
    match[text[better]] = other[order][first][better]
    similarity[text[better]] = found[order][first][better]
