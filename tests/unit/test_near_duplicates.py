"""Near-duplicates: MinHash may find too many candidates, but the exact similarity has the last word."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.near_duplicates import NearDuplicateIndex, jaccard, shingles, thin_out

WORDS = [
    "river",
    "house",
    "green",
    "quickly",
    "above",
    "seven",
    "window",
    "music",
    "stone",
    "rather",
    "winter",
    "market",
    "silent",
    "orange",
    "garden",
]


def sentences(count: int, seed: int, words: int = 12) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) + str(rng.randrange(40)) for _ in range(words)) for _ in range(count)]


def corpus_with_twins(seed: int = 3) -> list[str]:
    """Texts of which every third has a twin with a letter or two changed."""
    rng = random.Random(seed)
    texts = sentences(150, seed)
    for text in texts[::3]:
        at = rng.randrange(len(text) - 2)
        texts.append(text[:at] + rng.choice("xyz") + text[at + 1 :])
    rng.shuffle(texts)
    return texts


def brute_force(texts: list[str], threshold: float, size: int) -> set[tuple[int, int]]:
    sets = [shingles(text, size) for text in texts]
    return {
        (one, other)
        for one in range(len(texts))
        for other in range(one)
        if jaccard(sets[one], sets[other]) >= threshold
    }


def test_shingles_are_the_runs_of_characters_without_regard_to_case() -> None:
    assert shingles("AbcD", 3) == {"abc", "bcd"}
    assert shingles("ab", 3) == {"ab"}
    assert shingles("", 3) == {""}
    assert shingles("好电影好", 2) == {"好电", "电影", "影好"}


@given(st.text(), st.text(), st.integers(2, 20))
def test_similarity_is_between_0_and_1_and_the_same_both_ways(one: str, other: str, size: int) -> None:
    a, b = shingles(one, size), shingles(other, size)
    assert 0.0 <= jaccard(a, b) == jaccard(b, a) <= 1.0
    assert jaccard(a, a) == 1.0


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_the_index_finds_exactly_the_pairs_that_brute_force_finds(threshold: float) -> None:
    texts = corpus_with_twins()
    texts += [texts[0].upper(), texts[1]]
    index = NearDuplicateIndex(texts, threshold, 5, 128)
    found = {(at, other) for at in range(len(texts)) for other in others(index, texts, at) if other < at}
    expected = brute_force(texts, threshold, 5)
    assert found == expected
    assert len(expected) >= 2


@pytest.mark.parametrize("threshold", [0.7, 0.8])
def test_any_text_is_compared_with_all_indexed_ones(threshold: float) -> None:
    texts = corpus_with_twins()
    index = NearDuplicateIndex(texts[:120], threshold, 5, 128)
    for text in texts[120:]:
        own = shingles(text, 5)
        expected = {at for at in range(120) if jaccard(own, shingles(texts[at], 5)) >= threshold}
        assert set(index.matches(text)) == expected


def test_the_similarity_told_is_the_exact_one() -> None:
    texts = ["the quick brown fox jumps over the lazy dog", "the quick brown fox jumps over the lazy dot"]
    exact = jaccard(shingles(texts[0], 5), shingles(texts[1], 5))
    assert others(NearDuplicateIndex(texts, 0.8, 5, 128), texts, 0) == {1: exact}


def test_a_text_is_no_duplicate_of_itself_but_of_an_equal_one() -> None:
    for texts, expected in ((["alone in here"], {}), (["twice in here"] * 2, {1: 1.0})):
        assert others(NearDuplicateIndex(texts, 0.8, 5, 128), texts, 0) == expected


def test_texts_shorter_than_a_shingle_match_only_their_equals() -> None:
    texts = ["ok", "no", "OK", "好"]
    index = NearDuplicateIndex(texts, 0.8, 5, 128)
    assert [set(others(index, texts, at)) for at in range(4)] == [{2}, set(), {0}, set()]


def test_an_index_of_nothing_matches_nothing() -> None:
    assert NearDuplicateIndex([], 0.8, 5, 128).matches("whatever") == {}


@pytest.mark.parametrize("num_perm", [16, 17, 31, 64, 100, 127, 500, 512])
@pytest.mark.parametrize("threshold", [0.3, 0.31, 0.5, 0.75, 0.99, 1.0])
def test_every_setting_that_params_allow_finds_equal_texts(threshold: float, num_perm: int) -> None:
    texts = [*sentences(20, seed=5), sentences(20, seed=5)[4]]
    index = NearDuplicateIndex(texts, threshold, 2, num_perm)
    assert others(index, texts, 4)[20] == 1.0


@given(st.lists(st.text(max_size=30), max_size=12), st.text(max_size=30))
def test_no_match_is_ever_below_the_threshold_whatever_the_text(texts: list[str], text: str) -> None:
    index = NearDuplicateIndex(texts, 0.6, 3, 64)
    for at, score in index.matches(text).items():
        assert score == jaccard(shingles(text, 3), shingles(texts[at], 3)) >= 0.6
    for at, one in enumerate(texts):
        equal = {other for other, same in enumerate(texts) if same == one and other != at}
        assert equal <= set(others(index, texts, at))


def others(index: NearDuplicateIndex, texts: list[str], at: int) -> dict[int, float]:
    found = index.matches(texts[at])
    found.pop(at)
    return found


def test_thousands_of_texts_from_one_template_are_compared_with_one() -> None:
    template = "Dear customer, your order number {} has been shipped today and will arrive within three working days."
    twins = thin_out([template.format(number) for number in range(5000)], 0.8, 5, 128)
    assert twins[0] is None
    assert all(twin is not None and twin[0] == 0 for twin in twins[1:])
