"""Near-duplicate texts: MinHash LSH finds candidates, the exact Jaccard similarity of shingles decides.

Broder 1997, "On the resemblance and containment of documents"; MinHash and LSH come from rensa.
"""

from collections.abc import Sequence
from math import ceil

from rensa import RMinHash, RMinHashLSH

SEED = 1  # of the permutations; not the pipeline's seed, so that what counts as a duplicate never changes with it


def shingles(text: str, size: int) -> set[str]:
    """Return the character `size`-grams of a text, without regard to case; a shorter text is its own shingle."""
    folded = text.casefold()
    return {folded[start : start + size] for start in range(max(1, len(folded) - size + 1))}


def jaccard(one: set[str], other: set[str]) -> float:
    """Return the share of shingles that two texts have in common, from 0.0 to 1.0."""
    return len(one & other) / len(one | other)


class NearDuplicateIndex:
    """Find the texts of a list that nearly equal others of it."""

    def __init__(self, texts: Sequence[str], threshold: float, shingle_size: int, num_perm: int) -> None:
        """Index all texts.

        Args:
            texts: what to search in.
            threshold: Jaccard similarity from which two texts match.
            shingle_size: characters in a shingle.
            num_perm: MinHash permutations.
        """
        self.threshold = threshold
        self._size = shingle_size
        self._num_perm = num_perm
        self._texts = texts
        # rensa cuts the signature into bands by itself from their number; bands of r rows make a pair of similarity s
        # a candidate with probability 1 - (1 - s^r)^(n / r): choose r so that pairs at the threshold are hardly missed.
        self._lsh = RMinHashLSH(threshold=threshold, num_perm=num_perm, num_bands=_bands(threshold, num_perm))
        self._flags: list[bool] = []
        if texts:
            self._matrix = RMinHash.digest_matrix_from_token_sets(map(self._tokens, texts), num_perm, SEED)
            self._lsh.insert_matrix(self._matrix)
            self._flags = list(self._lsh.query_duplicate_flags_matrix(self._matrix))

    def matches_within(self, position: int) -> dict[int, float]:
        """Return the positions of the other texts that nearly equal this one, with their similarity."""
        if not self._flags[position]:
            return {}
        found = self.matches(self._texts[position])
        found.pop(position, None)
        return found

    def matches(self, text: str) -> dict[int, float]:
        """Return the positions of the indexed texts that nearly equal any text, with their similarity."""
        signature = RMinHash(num_perm=self._num_perm, seed=SEED)
        signature.update(self._tokens(text))
        own = shingles(text, self._size)
        similar = {at: jaccard(own, shingles(self._texts[at], self._size)) for at in self._lsh.query(signature)}
        return {at: score for at, score in sorted(similar.items()) if score >= self.threshold}

    def _tokens(self, text: str) -> list[str]:
        return list(shingles(text, self._size))


def _bands(threshold: float, num_perm: int, miss: float = 0.001) -> int:
    """Return the fewest bands that miss a pair at the threshold with at most the probability `miss`."""
    divisors = [bands for bands in range(1, num_perm + 1) if num_perm % bands == 0]
    for bands in divisors:
        rows = num_perm // bands
        if (1 - threshold**rows) ** bands <= miss:
            return bands
    return ceil(num_perm)
