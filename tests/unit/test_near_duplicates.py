"""Near-duplicates: MinHash may find too many candidates, but the exact similarity has the last word."""

import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.text.near_duplicates import deduplicate, jaccard, nearest_among, shingles
from tests.unit.small_records import FILM_WORDS


def sentences(count: int, seed: int, words: int = 12) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(FILM_WORDS) + str(rng.randrange(40)) for _ in range(words)) for _ in range(count)]


def corpus_with_twins(seed: int = 3) -> list[str]:
    """Texts of which every third has a twin with a letter or two changed."""
    rng = random.Random(seed)
    texts = sentences(150, seed)
    for text in texts[::3]:
        at = rng.randrange(len(text) - 2)
        texts.append(text[:at] + rng.choice("xyz") + text[at + 1 :])
    rng.shuffle(texts)
    return texts


def one_by_one(texts: list[str], threshold: float, size: int) -> list[bool]:
    """Which texts stay when each is compared, with all its shingles, with every kept one before it."""
    kept: list[set[str]] = []
    stays = []
    for text in texts:
        own = shingles(text, size)
        stays.append(all(jaccard(own, other) < threshold for other in kept))
        if stays[-1]:
            kept.append(own)
    return stays


Matches = list[tuple[int, float] | None]


def matches(found: tuple[Any, Any]) -> Matches:
    return [None if at < 0 else (int(at), similarity) for at, similarity in zip(*found, strict=True)]


def thinned(texts: list[str], threshold: float, size: int = 5, num_perm: int = 128) -> Matches:
    return matches(deduplicate(pl.Series(texts, dtype=pl.String), threshold, size, num_perm))


def nearest(texts: list[str], others: list[str], threshold: float, size: int = 5, num_perm: int = 128) -> Matches:
    columns = [pl.Series(column, dtype=pl.String) for column in (texts, others)]
    return matches(nearest_among(*columns, threshold, size, num_perm))


def test_shingles_are_the_runs_of_characters_without_regard_to_case() -> None:
    assert shingles("AbcD", 3) == {"abc", "bcd"}
    assert shingles("ab", 3) == {"ab"}
    assert shingles("", 3) == {""}
    assert shingles("好电影好", 2) == {"好电", "电影", "影好"}


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_what_stays_is_what_going_through_the_texts_one_by_one_leaves(threshold: float) -> None:
    texts = corpus_with_twins()
    texts += [texts[0].upper(), texts[1]]
    twins = thinned(texts, threshold)
    expected = one_by_one(texts, threshold, 5)
    assert [twin is None for twin in twins] == expected
    assert expected.count(False) >= 2


@given(
    st.lists(st.text(alphabet="ab ß\U0001f600", max_size=12), max_size=14),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
    st.integers(2, 5),
)
def test_chains_of_similar_texts_are_cut_as_one_by_one(texts: list[str], threshold: float, size: int) -> None:
    twins = thinned(texts, threshold, size, 512)  # so many permutations that none of these pairs is missed
    stays = one_by_one(texts, threshold, size)
    assert [twin is None for twin in twins] == stays
    for at, twin in enumerate(twins):
        if twin:
            assert twin[0] < at
            assert stays[twin[0]]
            assert twin[1] == jaccard(shingles(texts[at], size), shingles(texts[twin[0]], size)) >= threshold


@pytest.mark.parametrize("threshold", [0.7, 0.8])
def test_a_text_finds_its_match_among_others(threshold: float) -> None:
    texts = corpus_with_twins()
    known, asked = texts[:120], texts[120:]
    found = nearest(asked, known, threshold)
    for text, match in zip(asked, found, strict=True):
        own = shingles(text, 5)
        similar = {at: score for at, one in enumerate(known) if (score := jaccard(own, shingles(one, 5))) >= threshold}
        assert (match is not None) == bool(similar)
        if match:
            assert similar[match[0]] == match[1]
    assert any(found)


def test_texts_shorter_than_a_shingle_match_their_equals_and_among_nothing_there_is_nothing() -> None:
    assert thinned(["ok", "no", "OK", "好"], 0.8) == [None, None, (0, 1.0), None]
    assert nearest(["whatever"], [], 0.8) == [None]
    assert nearest([], ["whatever"], 0.8) == []
    assert thinned([], 0.8) == []
    assert thinned(["alone in here"], 0.8) == [None]


@pytest.mark.parametrize("num_perm", [16, 31, 100, 512])
@pytest.mark.parametrize("threshold", [0.3, 0.75, 1.0])
def test_every_setting_that_params_allow_finds_equal_texts(threshold: float, num_perm: int) -> None:
    texts = [*sentences(20, seed=5), sentences(20, seed=5)[4]]
    assert thinned(texts, threshold, 2, num_perm)[20] is not None
    assert nearest(texts[20:], texts[:20], threshold, 2, num_perm) == [(4, 1.0)]


def test_thousands_of_texts_from_one_template_are_compared_with_one() -> None:
    template = "Dear customer, your order number {} has been shipped today and will arrive within three working days."
    twins = thinned([template.format(number) for number in range(5000)], 0.8)
    assert twins[0] is None
    assert all(twin is not None and twin[0] == 0 for twin in twins[1:])
