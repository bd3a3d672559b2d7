"""Synonyms come from WordNet, in sense and form of the word they replace, and touch nothing that turns a meaning."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_wordnet import write_wordnet

from stages.augment.methods.synonyms import FILES, dictionary, replace
from stages.augment.words import replaceable
from stages.common.errors import AttuneError

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
    st.one_of(st.sampled_from(["film", "films,", "(great)", "not", "Film"]), st.text(max_size=6)), max_size=12
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_wordnet(tmp_path_factory.mktemp("wordnet") / "dict", SYNSETS, {"men": "man", "gentlemen": "gentleman"})
    (made / "verb.exc").write_text("paid pay\nviews view\n")
    return made


@pytest.fixture(scope="module")
def look(folder: Path):  # type: ignore[no-untyped-def]
    return dictionary(folder)


def drawn(look, word: str, times: int = 400) -> Counter[str]:  # type: ignore[no-untyped-def]
    rng = random.Random(1)
    return Counter(replace([word], 0.1, rng, look)[0] for _ in range(times))


def test_the_usual_sense_is_drawn_most_and_its_usual_synonym(look) -> None:  # type: ignore[no-untyped-def]
    made = drawn(look, "film")
    assert set(made) == {"movie", "moving picture", "celluloid"}
    assert 60 < made["celluloid"] < 140  # a quarter of what was met of the word was of this sense
    assert made["moving picture"] < 30


def test_a_usual_sense_without_synonyms_mostly_leaves_the_word(look) -> None:  # type: ignore[no-untyped-def]
    made = drawn(look, "great")
    assert set(made) == {"great", "outstanding"}
    assert 40 < made["outstanding"] < 120


def test_of_senses_never_met_the_first_counts(look) -> None:  # type: ignore[no-untyped-def]
    assert set(drawn(look, "hush")) == {"stillness"}


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("films", {"movies", "celluloids"}),  # no plural of "moving picture": which of the words gets the s is not said
        ("stories", {"tales"}),
        ("watches", {"views"}),
        ("boxes", {"boxes"}),  # the plural of piano has no rule
        ("gentlemans", {"gentlemans"}),
    ],
)
def test_a_form_in_s_gets_a_synonym_in_s(look, word: str, made: set[str]) -> None:  # type: ignore[no-untyped-def]
    assert set(drawn(look, word)) == made


@pytest.mark.parametrize(
    "word", ["men", "paid", "watched", "watching", "Film", "FILM", "not", "two", "2", "film's", "film-like", "电"]
)
def test_other_forms_names_numbers_and_negations_stay(look, word: str) -> None:  # type: ignore[no-untyped-def]
    assert set(drawn(look, word, 50)) == {word}


def test_no_name_is_put_in(look) -> None:  # type: ignore[no-untyped-def]
    assert set(drawn(look, "story")) == {"tale"}


def test_marks_around_a_word_stay(look) -> None:  # type: ignore[no-untyped-def]
    assert replace(['"story,"'], 0.1, random.Random(1), look) == ['"tale,"']


@given(words=ANYTHING, probability=st.floats(0, 1), seed=st.integers(0, 100))
def test_no_more_words_than_asked_are_replaced_and_one_if_there_is_any(
    look,
    words: list[str],
    probability: float,
    seed: int,  # type: ignore[no-untyped-def]
) -> None:
    made = replace(words, probability, random.Random(seed), look)
    changed = [(old, new) for old, new in zip(words, made, strict=True) if old != new]
    assert len(changed) <= max(1, round(probability * len(words)))
    assert made == replace(words, probability, random.Random(seed), look)
    if "films," in words:
        assert changed


@given(st.text(max_size=8))
def test_what_may_be_replaced_is_a_small_word_of_letters(word: str) -> None:
    if replaceable(word):
        assert word.isalpha()
        assert word == word.lower()
        assert word not in {"not", "no", "never", "the", "two", "不"}


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_lacks_a_file_is_refused_and_says_where_to_get_one(
    folder: Path, tmp_path: Path, name: str
) -> None:
    for file in folder.iterdir():
        if file.name != name:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(AttuneError, match=rf"ingest\.resources\.wordnet: .* it has no {name}") as caught:
        dictionary(tmp_path)
    assert "cp -r /usr/share/wordnet data/inbox/wordnet" in caught.value.fix


def test_files_that_are_no_dictionary_are_refused(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("no dictionary\n")
    with pytest.raises(AttuneError, match=r"ingest\.resources\.wordnet: the dictionary cannot be read"):
        dictionary(tmp_path)


@pytest.mark.parametrize("name", ["data.noun", "index.noun", "cntlist.rev"])
@pytest.mark.parametrize("harm", ["cut", "emptied", "binary", "no utf-8", "no numbers"])
@pytest.mark.filterwarnings("ignore:No WordNet synset")
def test_a_damaged_dictionary_is_named_and_never_a_traceback(tmp_path: Path, name: str, harm: str) -> None:
    made = write_wordnet(tmp_path / "dict", SYNSETS, {"men": "man"})
    whole = (made / name).read_bytes()
    harmed = {
        "cut": whole[: len(whole) // 4],
        "emptied": b"",
        "binary": bytes(range(128, 256)) * 40,
        "no utf-8": whole.replace(b"film", b"f\xff\xfem"),
        "no numbers": whole.replace(b" 0", b" zz"),
    }
    (made / name).write_bytes(harmed[harm])
    try:
        dictionary(made)("film")
    except AttuneError as error:
        assert str(made) in error.what
    else:  # nothing there is wrong: an index or list of counts may as well be short
        assert name != "data.noun" and harm not in ("binary", "no utf-8")


@pytest.mark.skipif(not Path("/usr/share/wordnet/index.noun").exists(), reason="Debian's wordnet-base is not installed")
def test_debians_package_is_read_as_it_is() -> None:
    look = dictionary(Path("/usr/share/wordnet"))
    assert set(drawn(look, "movies")) <= {"films", "pictures", "pics", "flicks"}
    assert set(drawn(look, "paid")) == {"paid"}
    assert "funny" not in drawn(look, "funny")
