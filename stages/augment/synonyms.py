"""EDA synonym replacement (Wei & Zou 2019) with WordNet (Miller 1995), an English dictionary, read through NLTK."""

import io
import random
import re
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from stages.augment.words import Resource, over_words, replaceable_words
from stages.common.errors import AttuneError

PARTS = ("noun", "verb", "adj", "adv")
LEXICOGRAPHERS = "".join(f"{number:02d}\tunnamed\t0\n" for number in range(45))

Counted = list[tuple[str, int]]  # words with how often each was met
Look = Callable[[str], list[tuple[int, Counted]]]


def synonyms(texts: Sequence[str], seeds: Sequence[str], settings: Any, resource: Resource) -> list[str]:
    """Replace `probability * len(words)` random words by synonyms, at least one, as far as WordNet has any.

    An AttuneError if a file is missing or is not what WordNet has there.
    """
    folder = resource("wordnet")
    try:
        look = dictionary(folder)
        return over_words(partial(replace, look=look))(texts, seeds, settings, resource)
    except Exception as error:  # NLTK trusts the files: anything from an index error to bad UTF-8
        raise AttuneError(
            f"ingest.resources.wordnet: {folder} is no WordNet dictionary, or a damaged one ({error!r})",
            "name the folder `dict` of Princeton WordNet 3.0 or 3.1; on Debian: apt-get install wordnet-base, then "
            "cp -r /usr/share/wordnet data/inbox/wordnet and ingest.resources.wordnet: {path: data/inbox/wordnet}",
        ) from None


def replace(words: list[str], probability: float, rng: random.Random, look: Look) -> list[str]:
    """Return the words with some replaced.

    For each word a sense is drawn by how often it was met in SemCor, so that the usual meaning mostly wins, then one
    of its synonyms the same way. A sense without synonyms leaves the word as it is, and the next word is tried.
    """
    changed, cores = list(words), replaceable_words(words)
    left = max(1, round(probability * len(words)))
    for position in rng.sample(list(cores), len(cores)):
        before, inner, after = cores[position]
        if not left or not (senses := look(inner)):
            continue
        (sense,) = rng.choices([names for _, names in senses], [count for count, _ in senses])
        if sense:
            (synonym,) = rng.choices([name for name, _ in sense], [count + 1 for _, count in sense])
            changed[position] = f"{before}{synonym}{after}"
            left -= 1
    return changed


def dictionary(folder: Path) -> Look:
    """Open Princeton WordNet's `dict` folder; return a function from a word to its senses.

    Each has how often it was met, and its synonyms, none of them a name. A word has senses in its base form alone: with
    a synonym for another form (films, went, better, paid), a text would not stay grammatical.
    """
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Princeton(WordNetCorpusReader):
        def open(self, file: str) -> Any:
            # Names of WordNet's source files, which Debian's package leaves out; only their number matters here.
            return io.StringIO(LEXICOGRAPHERS) if file == "lexnames" else super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """Do not look for other versions: the map between them serves other languages' dictionaries."""

    nltk.data.path[:] = [str(folder.resolve())]  # NLTK reads from nowhere else: no download, nothing to unpickle
    with warnings.catch_warnings(action="ignore"):  # that other languages are not there
        reader = Princeton(str(folder.resolve()), None)
    # "paid" is an adjective, too, but mostly the past of "pay", and only a parser would know.
    exceptions = [(folder / f"{part}.exc").read_text(encoding="utf-8").splitlines() for part in PARTS]
    forms = {form for line in chain(*exceptions) for form, *bases in [line.split()] if set(bases) - {form}}

    @cache
    def look(word: str) -> list[tuple[int, Counted]]:
        if word in forms:
            return []
        senses = [sense for synset in reader.synsets(word) if (sense := _sense(synset, word))]
        if not any(count for count, _ in senses):  # never met in SemCor: the senses still stand in order
            return [(1, names) for _, names in senses[:1]]
        return senses

    return look


def _sense(synset: Any, word: str) -> tuple[int, Counted] | None:
    """Return how often the word was met in this sense, and its synonyms; nothing if the word is in another form."""
    lemmas = {lemma.name(): lemma for lemma in synset.lemmas()}
    if word not in lemmas:
        return None
    names = [name for name in lemmas if name != word and re.fullmatch(r"[a-z]+(_[a-z]+)*", name)]
    return lemmas[word].count(), [(name.replace("_", " "), lemmas[name].count()) for name in names]
