"""Near-duplicates: MinHash may find too many candidates, but the exact similarity has the last word."""

import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.text.near_duplicates import deduplicate, nearest_among
from tests.unit.small_records import FILM_WORDS, jaccard, shingles

Matches = list[tuple[int, float] | None]  # of each text: the position of the text that it nearly equals, similarity


def corpus(seed: int = 3, count: int = 150) -> list[str]:
    """Texts of which every third stands there once more with a letter or two changed."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choice(FILM_WORDS) + str(rng.randrange(40)) for _ in range(12)) for _ in range(count)]
    for text in texts[::3]:
        position = rng.randrange(len(text) - 2)
        texts.append(text[:position] + rng.choice("xyz") + text[position + 1 :])
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


def matches(result: tuple[Any, Any]) -> Matches:
    return [None if index < 0 else (int(index), similarity) for index, similarity in zip(*result, strict=True)]


def duplicates(texts: list[str], threshold: float, size: int = 5, num_perm: int = 128) -> Matches:
    return matches(deduplicate(pl.Series(texts, dtype=pl.String), threshold, size, num_perm))


def nearest(texts: list[str], others: list[str], threshold: float, size: int = 5, num_perm: int = 128) -> Matches:
    columns = [pl.Series(column, dtype=pl.String) for column in (texts, others)]
    return matches(nearest_among(*columns, threshold, size, num_perm))


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_what_stays_is_what_going_through_the_texts_one_by_one_leaves(threshold: float) -> None:
    texts = corpus()
    texts += [texts[0].upper(), texts[1]]
    expected = one_by_one(texts, threshold, 5)
    assert [match is None for match in duplicates(texts, threshold)] == expected and expected.count(False) >= 2


@given(
    st.lists(st.text("ab ß\U0001f600", max_size=12), max_size=14),
    st.sampled_from([0.3, 0.8, 1.0]),
    st.integers(2, 5),
)
def test_chains_of_similar_texts_are_cut_as_one_by_one(texts: list[str], threshold: float, size: int) -> None:
    result = duplicates(texts, threshold, size, 512)  # so many permutations that none of these pairs is missed
    stays = one_by_one(texts, threshold, size)
    assert [match is None for match in result] == stays
    for index, match in enumerate(result):
        if match:
            assert match[0] < index and stays[match[0]]
            assert match[1] == jaccard(shingles(texts[index], size), shingles(texts[match[0]], size)) >= threshold


def test_a_text_finds_its_match_among_others() -> None:
    texts = corpus()
    known, new = [shingles(text, 5) for text in texts[:120]], texts[120:]
    result = nearest(new, texts[:120], 0.7)
    for text, match in zip(new, result, strict=True):
        scores = [jaccard(shingles(text, 5), other) for other in known]
        assert (match is not None) == (max(scores) >= 0.7)
        assert match is None or scores[match[0]] == match[1]
    assert any(result)


def test_among_nothing_there_is_nothing() -> None:
    assert (nearest(["text"], [], 0.8), nearest([], ["text"], 0.8), duplicates([], 0.8)) == ([None], [], [])


@pytest.mark.parametrize(("threshold", "num_perm"), [(0.3, 16), (0.75, 31), (0.3, 512), (1.0, 16)])
def test_every_setting_that_params_allow_finds_equal_texts(threshold: float, num_perm: int) -> None:
    texts = corpus(count=20)
    assert duplicates([*texts, texts[4]], threshold, 2, num_perm)[-1] is not None
    assert nearest(texts[4:5], texts, threshold, 2, num_perm) == [(4, 1.0)]


def test_thousands_of_texts_from_one_template_are_compared_with_one() -> None:
    template = "Dear customer, your order number {} has been shipped today and will arrive within three working days."
    result = duplicates([template.format(number) for number in range(5000)], 0.8)
    assert {match and match[0] for match in result} == {None, 0} and result.count(None) == 1
