"""Synonyms come from WordNet, in sense and form of the word they replace, and touch nothing that turns a meaning."""

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.augment.synonyms import Look, dictionary, replace, synonyms
from stages.common.errors import AttuneError
from tests.unit.small_wordnet import write_wordnet

SYNSETS = [
    ("noun", {"movie": 30, "film": 60, "moving_picture": 0}),
    ("noun", {"film": 20, "celluloid": 0}),
    ("noun", {"man": 50, "gentleman": 9}),
    ("noun", {"piano": 3, "box": 2}),
    ("noun", {"story": 9, "tale": 3, "Iliad": 5}),
    ("noun", {"hush": 0, "stillness": 0}),
    ("noun", {"hush": 0, "quiet": 0}),
    ("noun", {"not": 5, "knot": 5}),
    ("verb", {"watch": 10, "view": 5, "look_on": 4}),
    ("adj", {"paid": 3, "nonrecreational": 0}),
    ("adj", {"great": 80}),
    ("adj", {"great": 20, "outstanding": 1}),
    ("adj", {"two": 5, "ii": 1}),
    ("adv", {"quickly": 5, "rapidly": 2}),
]
ANYTHING = st.lists(
    st.one_of(st.sampled_from(["film", "film,", "(great)", "not", "Film"]), st.text(max_size=6)), max_size=12
)


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    irregular = {"men": "man", "gentlemen": "gentleman"}
    folder = write_wordnet(tmp_path_factory.mktemp("wordnet") / "dict", SYNSETS, irregular)
    (folder / "verb.exc").write_text("paid pay\nviews view\n")
    return dictionary(folder)


def drawn(look: Look, word: str) -> Counter[str]:
    rng = random.Random(1)
    return Counter(replace([word], 0.1, rng, look)[0] for _ in range(400))


def test_the_usual_sense_is_drawn_most_and_its_usual_synonym(look: Look) -> None:
    made = drawn(look, "film")
    assert set(made) == {"movie", "moving picture", "celluloid"}
    assert 60 < made["celluloid"] < 140  # a quarter of what was met of the word was of this sense
    assert made["moving picture"] < 30


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("hush", {"stillness"}),  # of senses never met the first counts
        ("great", {"great", "outstanding"}),  # the usual sense has no synonym
        ("story", {"tale"}),  # and no name is put in
        ('"story,"', {'"tale,"'}),
        # other forms, names, numbers and negations stay
        *((word, {word}) for word in ("films", "men", "paid", "watched", "Film", "not", "two", "film's")),
    ],
)
def test_a_word_in_its_base_form_has_synonyms_and_keeps_the_marks_around_it(
    look: Look, word: str, made: set[str]
) -> None:
    assert set(drawn(look, word)) == made


@given(words=ANYTHING, probability=st.floats(0, 1), seed=st.integers(0, 100))
def test_no_more_words_than_asked_are_replaced_and_one_if_there_is_any(
    look: Look, words: list[str], probability: float, seed: int
) -> None:
    made = replace(words, probability, random.Random(seed), look)
    changed = sum(old != new for old, new in zip(words, made, strict=True))
    assert changed <= max(1, round(probability * len(words)))
    assert changed or "film," not in words


@pytest.mark.filterwarnings("ignore:No WordNet synset")
@pytest.mark.parametrize("name", ["data.noun", "index.noun", "noun.exc", "cntlist.rev"])
def test_a_damaged_dictionary_is_named_and_never_a_traceback(tmp_path: Path, name: str) -> None:
    folder = write_wordnet(tmp_path / "dict", SYNSETS, {"men": "man"})
    content = (folder / name).read_bytes()
    for harmed in (content.replace(b"m", b"\xff\xfem"), *([b"none\n", content[:9]] if name == "data.noun" else [])):
        (folder / name).write_bytes(harmed)
        with pytest.raises(AttuneError) as caught:
            synonyms(["film"], ["13"], SimpleNamespace(probability=1.0), lambda _: folder)
        assert str(folder) in caught.value.what
        assert "cp -r /usr/share/wordnet data/inbox/wordnet" in caught.value.fix


@pytest.mark.skipif(not Path("/usr/share/wordnet/index.noun").exists(), reason="Debian's wordnet-base is not installed")
def test_debians_package_is_read_as_it_is() -> None:
    look = dictionary(Path("/usr/share/wordnet"))
    assert set(drawn(look, "movie")) & {"film", "picture", "pic", "flick"}
    assert set(drawn(look, "paid")) == {"paid"}
    assert "funny" not in drawn(look, "funny")
