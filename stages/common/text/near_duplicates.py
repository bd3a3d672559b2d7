"""Near-duplicate texts: MinHash LSH finds candidates, the exact Jaccard similarity of shingles decides.

Broder 1997, "On the resemblance and containment of documents"; MinHash comes from rensa. Whatever is done per text or
per pair is done for many at once in numpy, on whole numbers; benchmarks/cleaning.py has the figures.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import polars as pl
from rensa import RMinHash

SEED = 1  # of the permutations; not the pipeline's seed, so that what counts as a duplicate never changes with it
NONE = -1

TEXTS = 10_000  # sketched at once: rensa returns signatures as Python numbers, 50 MB of them for so many
CHARACTERS = 2_000_000  # hashed at once
PAIRS = 4_000_000  # looked at at once
MANY = 200_000  # texts from which processes pay; Python's lock keeps threads from handling rensa's numbers
PROCESSES = min(4, os.cpu_count() or 1)  # each takes some 150 MB
THREADS = min(8, os.cpu_count() or 1)  # each takes some 50 MB
ATTEMPTS = ((0, 1), (1, 8), (8, 2**32))  # candidates of a text that are compared together, by estimated similarity
MISS = 0.001  # chance that a pair at the threshold shares no band
DOUBT = 4.5  # standard deviations below the threshold from which a signature rules a pair out
HASH_BITS = np.uint64(48)  # of a shingle, where the upper 16 name the pair: one pair in 10^9 is mistaken, by a shingle


def deduplicate(texts: pl.Series, threshold: float, shingle_size: int, num_perm: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep each text that nearly equals no kept one before it.

    The same as going through the texts one by one, for all of them at once: a text that is the first undecided one in
    each of its buckets stays, and removes those behind it that nearly equal it; then come the next ones. Only kept
    texts are compared with, so that thousands of texts from one template cost no more than as many others, unless they
    stay under the threshold: then each is compared with each.

    The texts, no nulls among them, are in the order of their precedence. Two match from a Jaccard similarity of
    `threshold` on, of shingles of so many characters.

    Returns:
        duplicate_of: int64 (texts,), the kept text that this one nearly equals, -1 where it is kept itself.
        similarity: float64 (texts,), their exact Jaccard similarity, 0.0 where there is none.
    """
    duplicate_of, similarity = np.full(len(texts), NONE), np.zeros(len(texts))
    sketch = _sketch(texts, shingle_size, num_perm, threshold, SEED)
    bucket, row = _buckets(sketch.keys)
    while len(bucket):
        first = _first(bucket)
        blocked = np.zeros(len(texts), dtype=bool)
        blocked[row[~first]] = True
        # Each bucket that a kept text leads: that text, and all behind it.
        leader = np.repeat(row[first], np.diff(np.append(np.flatnonzero(first), len(bucket))))
        led = ~blocked[leader] & ~first
        pairs = _distinct_values(row[led].astype(np.int64) << 32 | leader[led])
        _match(pairs, sketch, sketch, threshold, duplicate_of, similarity)
        undecided = blocked[row] & (duplicate_of[row] == NONE)
        bucket, row = _without_singletons(bucket[undecided], row[undecided])
    return duplicate_of, similarity


def nearest_among(
    texts: pl.Series, others: pl.Series, threshold: float, shingle_size: int, num_perm: int, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Find for each text one of the others that nearly equals it, those of the highest estimated similarity first.

    Returns:
        position: int64 (texts,), where in `others` the match stands, -1 where there is none.
        similarity: float64 (texts,), their exact Jaccard similarity, 0.0 where there is none.
    """
    position, similarity = np.full(len(texts), NONE), np.zeros(len(texts))
    if len(texts) and len(others):
        own = _sketch(texts, shingle_size, num_perm, threshold, seed)
        their = _sketch(others, shingle_size, num_perm, threshold, seed)
        for pairs in _in_common(own.keys, their.keys):
            _match(pairs, own, their, threshold, position, similarity)
    return position, similarity


class _Sketch(NamedTuple):
    texts: pl.Series
    size: int  # characters in a shingle
    keys: list[np.ndarray]  # of each band, uint32 (texts,)
    low: np.ndarray  # uint8 (texts, num_perm), the signatures' lowest bits (b-bit MinHash, Li & König 2010)


def _sketch(texts: pl.Series, size: int, num_perm: int, threshold: float, seed: int) -> _Sketch:
    # The most rows a band can have while hardly a pair at the threshold shares none: bands of r rows make a pair of
    # similarity s a candidate with probability 1 - (1 - s^r)^(bands).
    fits = [r for r in range(1, num_perm + 1) if (1 - threshold**r) ** (num_perm // r) <= MISS]
    rows = max(fits, default=1)
    keys = [np.empty(len(texts), dtype=np.uint32) for _ in range(num_perm // rows)]
    low = np.empty((len(texts), num_perm), dtype=np.uint8)
    portions = list(_portions(texts.str.len_bytes().to_numpy(), TEXTS))
    batches = (texts[portion].to_list() for portion in portions)
    sign = partial(_signatures, size=size, num_perm=num_perm, rows=rows, seed=seed)
    many = len(texts) >= MANY and PROCESSES > 1
    with get_context("spawn").Pool(PROCESSES) if many else nullcontext() as pool:
        signed = (pool.imap if pool else map)(sign, batches)
        for portion, (portion_keys, low[portion]) in zip(portions, signed, strict=True):
            for key, portion_key in zip(keys, portion_keys, strict=True):
                key[portion] = portion_key
    return _Sketch(texts, size, keys, low)


def _signatures(texts: list[str], size: int, num_perm: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys (uint32, (num_perm // rows, len(texts))) and the lowest bits of the signatures."""
    hashes, offsets = _shingle_hashes(texts, size)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), num_perm, seed)
    signatures = np.array(matrix.to_rows(), dtype=np.uint32)
    weights = _mixed(np.arange(1, rows + 1, dtype=np.uint64)) | np.uint64(1)
    bands = signatures[:, : num_perm // rows * rows].reshape(len(texts), -1, rows)
    keys = _mixed((bands * weights).sum(axis=2)) >> np.uint64(32)
    return keys.T.astype(np.uint32), (signatures & 0xFF).astype(np.uint8)


def _shingle_hashes(texts: list[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint64 hashes of the shingles at all positions, text after text; and where each text begins (n + 1)."""
    folded = [text.casefold().ljust(size, "\0") for text in texts]  # a shorter text is its own shingle
    lengths = np.fromiter(map(len, folded), dtype=np.int64, count=len(folded))
    points = np.frombuffer("".join(folded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    windows = len(points) - size + 1
    hashes = np.zeros(max(windows, 0), dtype=np.uint64)
    for offset in range(size):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += points[offset : offset + windows]
    counts = lengths - size + 1
    offsets = np.concatenate([[0], np.cumsum(counts)])
    starts = np.cumsum(lengths) - lengths
    inside = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)  # no window over two texts
    return _mixed(hashes[inside]), offsets


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread every bit over all 64 (the finalizer of SplitMix64; Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _buckets(keys: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return, over all bands, which texts share a key: the bucket (ascending) and the row of each, int32 both.

    Empties `keys`, which takes much memory.
    """
    firsts, rows = [], []
    while keys:
        key = keys.pop()
        tagged = np.sort(key.astype(np.uint64) << np.uint64(32) | np.arange(len(key), dtype=np.uint64))
        shared, row = _without_singletons(tagged >> np.uint64(32), tagged.astype(np.uint32).astype(np.int32))
        firsts.append(_first(shared))
        rows.append(row)
    return np.cumsum(np.concatenate(firsts), dtype=np.int32), np.concatenate(rows)


def _without_singletons(bucket: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave out the buckets that hold one text."""
    first = _first(bucket)
    shared = ~(first & np.append(first[1:], True)) if len(first) else first
    return bucket[shared], row[shared]


def _first(values: np.ndarray) -> np.ndarray:
    """Return where a run of equal values begins."""
    first = np.ones(len(values), dtype=bool)
    first[1:] = values[1:] != values[:-1]
    return first


def _in_common(own: list[np.ndarray], their: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the pairs (text in the upper, other in the lower 32 bits) that share a key, all of a text's together."""
    orders = [np.argsort(key, kind="stable") for key in their]
    spans = [
        (np.searchsorted(key[order], own_key, "left"), np.searchsorted(key[order], own_key, "right"))
        for own_key, key, order in zip(own, their, orders, strict=True)
    ]
    for portion in _portions(np.sum([right - left for left, right in spans], axis=0), len(own[0]), PAIRS):
        pairs = []
        for (left, right), order in zip(spans, orders, strict=True):
            counts = right[portion] - left[portion]
            text = np.repeat(np.arange(portion.start, portion.stop), counts)
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            pairs.append(text << 32 | order[np.repeat(left[portion], counts) + within])
        yield _distinct_values(np.concatenate(pairs))


def _match(
    pairs: np.ndarray, own: _Sketch, their: _Sketch, threshold: float, position: np.ndarray, similarity: np.ndarray
) -> None:
    """Note in `position` and `similarity` for each text one of its candidates that nearly equals it.

    `pairs` (int64) have a text in their upper and a candidate in their lower 32 bits. The candidate of the highest
    estimate is compared first: where it matches, the others need no exact comparison.
    """
    text, other = pairs >> 32, pairs & 0xFFFFFFFF
    num_perm = own.low.shape[1]
    agree, step = np.empty(len(pairs)), max(1, 16_000_000 // num_perm)
    for start in range(0, len(pairs), step):
        part = slice(start, start + step)
        agree[part] = (own.low[text[part]] == their.low[other[part]]).mean(axis=1)
    estimate = (agree - 1 / 256) / (1 - 1 / 256)  # without what is equal by chance
    least = threshold - DOUBT * float(np.sqrt(threshold * (1 - threshold) / num_perm)) - 1e-9
    order = np.lexsort((other, -estimate, text))
    order = order[estimate[order] >= least]
    text, other = text[order], other[order]
    rank = np.arange(len(text)) - np.searchsorted(text, text)
    for start, end in ATTEMPTS:
        undecided = (rank >= start) & (rank < end) & (position[text] == NONE)
        exact = _similarity(text[undecided], other[undecided], own, their)
        near = exact >= threshold
        matches = pl.DataFrame({"text": text[undecided][near], "other": other[undecided][near], "exact": exact[near]})
        best = matches.sort("exact", "other", descending=[True, False]).unique("text", keep="first")
        position[best["text"].to_numpy()] = best["other"].to_numpy()
        similarity[best["text"].to_numpy()] = best["exact"].to_numpy()


def _similarity(text: np.ndarray, other: np.ndarray, own: _Sketch, their: _Sketch) -> np.ndarray:
    """Return the exact Jaccard similarity of each pair, float64; numpy mostly works outside of Python's lock."""

    def exact(portion: slice) -> np.ndarray:
        first, first_sizes = _distinct_shingles(own.texts.gather(text[portion]).to_list(), own.size)
        second, second_sizes = _distinct_shingles(their.texts.gather(other[portion]).to_list(), their.size)
        both = np.sort(np.concatenate([first, second]))
        common = np.bincount(both[1:][both[1:] == both[:-1]] >> HASH_BITS, minlength=len(first_sizes))
        return common / (first_sizes + second_sizes - common)

    lengths = own.texts.gather(text).str.len_bytes() + their.texts.gather(other).str.len_bytes()
    with ThreadPoolExecutor(THREADS) as threads:
        return np.concatenate([np.empty(0), *threads.map(exact, _portions(lengths.to_numpy(), 0xFFFF))])


def _portions(sizes: np.ndarray, most: int, limit: int = CHARACTERS) -> Iterator[slice]:
    """Yield portions of at most `most` items, whose sizes add up to at most `limit` unless it is a single item."""
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        end = min(start + most, max(start + 1, int(np.searchsorted(ends, before + limit, "right"))))
        yield slice(start, end)
        start = end


def _distinct_shingles(texts: list[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct shingles of each text, its number in the upper 16 bits; and how many each text has."""
    hashes, offsets = _shingle_hashes(texts, size)
    number = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(offsets))
    tagged = _distinct_values(number << HASH_BITS | hashes >> (np.uint64(64) - HASH_BITS))
    return tagged, np.bincount(tagged >> HASH_BITS, minlength=len(texts))


def _distinct_values(values: np.ndarray) -> np.ndarray:
    """Return the sorted distinct values; `values` is sorted in place (numpy's `unique` hashes, many times slower)."""
    values.sort()
    return values[_first(values)]
