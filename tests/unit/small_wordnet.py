"""Write a dictionary of a few words in the format of Princeton WordNet's `dict` folder (wndb(5WN), senseidx(5WN))."""

from collections import Counter, defaultdict
from pathlib import Path

NUMBERS = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
LETTERS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
HEADER = "  1 This file is in the format of WordNet 3.0 Copyright 2006 by Princeton University.  \n"

Synset = tuple[str, dict[str, int]]  # part of speech; words with how often each was met in this sense


def write_wordnet(folder: Path, synsets: list[Synset], exceptions: dict[str, str]) -> Path:
    """Write the synsets in the order of their frequency, and irregular forms of nouns with their base form."""
    folder.mkdir(parents=True)
    uses: Counter[tuple[str, str]] = Counter()
    counts = []
    for part, number in NUMBERS.items():
        data, index = HEADER, defaultdict(list)
        for words in (words for of, words in synsets if of == part):
            offset = len(data.encode())
            lemmas = ""
            for word, count in words.items():
                lemmas += f" {word} {uses[part, word]:x}"
                key = f"{word}%{number}:00:{uses[part, word]:02d}::"
                uses[part, word] += 1
                index[word].append(offset)
                if count:
                    counts.append(f"{key} {len(index[word])} {count}\n")
            frames = " 01 + 02 00" if part == "verb" else ""
            data += f"{offset:08d} 00 {LETTERS[part]} {len(words):02x}{lemmas} 000{frames} | a meaning  \n"
        (folder / f"data.{part}").write_text(data)
        lines = [
            f"{word} {LETTERS[part]} {len(at)} 0 {len(at)} {len(at)} {' '.join(f'{offset:08d}' for offset in at)}  \n"
            for word, at in sorted(index.items())
        ]
        (folder / f"index.{part}").write_text(HEADER + "".join(lines))
        irregular = exceptions if part == "noun" else {}
        (folder / f"{part}.exc").write_text("".join(f"{form} {base}\n" for form, base in sorted(irregular.items())))
    (folder / "cntlist.rev").write_text("".join(sorted(counts)))
    return folder
