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
        self._shingles: dict[int, set[str]] = {}
        if texts:
            self._lsh.insert_matrix(RMinHash.digest_matrix_from_token_sets(map(self._tokens, texts), num_perm, SEED))

    def matches(self, text: str) -> dict[int, float]:
        """Return the positions of the indexed texts that nearly equal any text, with their similarity."""
        return self._matches(self._signature(text), shingles(text, self._size))

    def add_unless_matched(self, position: int, text: str) -> dict[int, float]:
        """Return what `matches` returns; if that is nothing, index the text under this position."""
        signature, own = self._signature(text), shingles(text, self._size)
        found = self._matches(signature, own)
        if not found:
            self._lsh.insert(position, signature)
            self._shingles[position] = own
        return found

    def share_a_band(self, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether any other could nearly equal it: a quick look that leaves few to compare."""
        if not texts:
            return []
        matrix = RMinHash.digest_matrix_from_token_sets(map(self._tokens, texts), self._num_perm, SEED)
        return list(self._lsh.query_duplicate_flags_matrix_one_shot(matrix))

    def _matches(self, signature: RMinHash, own: set[str]) -> dict[int, float]:
        similar = {at: jaccard(own, self._shingles_of(at)) for at in self._lsh.query(signature)}
        return {at: score for at, score in sorted(similar.items()) if score >= self.threshold}

    def _shingles_of(self, position: int) -> set[str]:
        return self._shingles.get(position) or shingles(self._texts[position], self._size)

    def _signature(self, text: str) -> RMinHash:
        signature = RMinHash(num_perm=self._num_perm, seed=SEED)
        signature.update(self._tokens(text))
        return signature

    def _tokens(self, text: str) -> list[str]:
        return list(shingles(text, self._size))


def thin_out(
    texts: Sequence[str], threshold: float, shingle_size: int, num_perm: int
) -> list[tuple[int, float] | None]:
    """Keep each text that nearly equals no kept one before it.

    Only kept texts are searched, so that thousands of texts from one template cost no more than as many others.

    Returns:
        For each text: None if it is kept, else the position of the nearest kept one and their similarity.
    """
    index = NearDuplicateIndex([], threshold, shingle_size, num_perm)
    twins: list[tuple[int, float] | None] = []
    for position, suspected in enumerate(index.share_a_band(texts)):
        found = index.add_unless_matched(position, texts[position]) if suspected else {}
        nearest = max(found, key=lambda at: (found[at], -at)) if found else None
        twins.append(None if nearest is None else (nearest, found[nearest]))
    return twins


def _bands(threshold: float, num_perm: int, miss: float = 0.001) -> int:
    """Return the fewest bands that miss a pair at the threshold with at most the probability `miss`."""
    divisors = [bands for bands in range(1, num_perm + 1) if num_perm % bands == 0]
    for bands in divisors:
        rows = num_perm // bands
        if (1 - threshold**rows) ** bands <= miss:
            return bands
    return ceil(num_perm)
