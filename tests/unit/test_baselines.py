"""Baselines: what each of them can and cannot learn."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.tasks import baselines
from tests.models import FILLER, TELLING
from tests.unit.small_records import text_rows


def sentences(number: int, seed: int, space: str = " ") -> tuple[pl.DataFrame, np.ndarray]:
    """Sentences whose one telling word stands anywhere among words that tell nothing."""
    generator = np.random.default_rng(seed)
    actual = generator.integers(0, 2, number)
    texts = []
    for label in actual:
        words = [*generator.choice(FILLER, 5), generator.choice(TELLING["good" if label else "bad"])]
        generator.shuffle(words)
        texts.append(space.join(words))
    return text_rows(texts), actual


def accuracy(predicted: np.ndarray, actual: np.ndarray) -> float:
    return float((predicted == actual).mean())


@pytest.mark.parametrize("space", [" ", ""])
def test_tfidf_learns_words_and_characters_where_there_are_no_spaces(space: str) -> None:
    (train, known), (test, actual) = sentences(200, 0, space), sentences(100, 1, space)
    assert accuracy(baselines.classes("tfidf", train, known, test, Path(), 16), actual) > 0.95


def test_tfidf_reads_chinese_with_a_space_here_and_there() -> None:
    good, bad = "这个东西用了几个星期还是很好我和家人都满意", "这个东西用了几个星期已经很差我和家人都失望"
    train = text_rows([f"{good}{good} 谢谢", f"{bad}{bad} 谢谢"] * 20)
    test = text_rows(["很差都失望", "很好都满意"])
    assert baselines.classes("tfidf", train, np.array([1, 0] * 20), test, Path(), 16).tolist() == [0, 1]


def test_tfidf_reads_the_second_text_of_a_pair() -> None:
    train = text_rows(["the same words"] * 40, ["warm light", "cold light"] * 20)
    test = text_rows(["the same words"] * 2, ["cold day", "warm day"])
    assert baselines.classes("tfidf", train, np.array([1, 0] * 20), test, Path(), 16).tolist() == [0, 1]


def test_linear_probe_learns_from_an_untrained_encoder(base: Path) -> None:
    """Even random weights keep apart texts of different words; a probe on them is far above chance."""
    (train, known), (test, actual) = sentences(300, 0), sentences(100, 1)
    probe, majority = (baselines.classes(name, train, known, test, base, 16) for name in ("base_model", "majority"))
    assert accuracy(probe, actual) > max(0.75, accuracy(majority, actual) + 0.15)


def test_linear_probe_sees_only_the_tokens_that_the_model_sees(base: Path) -> None:
    (train, known), (test, _) = sentences(100, 0), sentences(30, 1)
    shortened = test.with_columns(pl.col("text").str.split(" ").list.head(2).list.join(" "))
    of_whole, of_short = (baselines.classes("base_model", train, known, texts, base, 4) for texts in (test, shortened))
    assert of_whole.tolist() == of_short.tolist()  # [CLS], two words, [SEP]
