"""Contextual augmentation (Kobayashi 2018): words give way to what a masked language model would put in their place."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.augment.pretrained import open_model, open_tokenizer
from stages.augment.simple import Resource
from stages.augment.words import core, replaceable, split

KEY = "ingest.resources.masked_lm"


@dataclass
class Masked:
    """The words of a text, the places of those that are masked, and the ids of the masked text."""

    words: list[str]
    joint: str
    places: list[int]
    input_ids: list[int]


def contextual(texts: Sequence[str], seeds: Sequence[str], settings: Any, resource: Resource) -> list[str]:
    """Replace `probability * len(words)` random words by ones the model finds likely there, at least one.

    All masks of a text are filled at once. A word is drawn from the `top_k` likeliest whole words other than the
    original by the model's own probabilities, rounded to four digits: floats differ in the last digits with the other
    texts in a batch, and the words drawn shall not.
    """
    import torch

    folder = resource("masked_lm")
    tokenizer = open_tokenizer(folder, KEY)
    model, limit = open_model(folder, "AutoModelForMaskedLM", KEY, tokenizer)
    masked = [
        _mask(text, settings.probability, random.Random(seed), tokenizer, limit)
        for text, seed in zip(texts, seeds, strict=True)
    ]
    vocabularies = {spaced: _whole_words(tokenizer, spaced) for spaced in (True, False)}
    order = sorted((at for at, one in enumerate(masked) if one.places), key=lambda at: (len(masked[at].input_ids), at))
    for start in range(0, len(order), settings.batch_size):
        batch = order[start : start + settings.batch_size]
        given = tokenizer.pad({"input_ids": [masked[at].input_ids for at in batch]}, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**given.to(model.device)).logits  # [b x s x v]
        for at, row, ids in zip(batch, logits, given["input_ids"], strict=True):
            at_masks = row[ids == tokenizer.mask_token_id].softmax(dim=-1).cpu()  # [masks x v]
            _fill(masked[at], at_masks, vocabularies[bool(masked[at].joint)], settings.top_k, f"{seeds[at]} words")
    return [one.joint.join(one.words) for one in masked]


def _mask(text: str, probability: float, rng: random.Random, tokenizer: Any, limit: int) -> Masked:
    words, joint = split(text)
    cores = [core(word) for word in words]
    places = [at for at, (_, inner, _) in enumerate(cores) if replaceable(inner)]
    chosen = sorted(rng.sample(places, min(len(places), max(1, round(probability * len(words))))))
    if not chosen or tokenizer.mask_token in text:  # indistinguishable from ours
        return Masked(words, joint, [], [])
    hidden = list(words)
    for at in chosen:
        before, _, after = cores[at]
        hidden[at] = f"{before}{tokenizer.mask_token}{after}"
    ids = tokenizer(joint.join(hidden), truncation=True, max_length=limit)["input_ids"]
    return Masked(words, joint, chosen[: ids.count(tokenizer.mask_token_id)], ids)


def _fill(masked: Masked, probabilities: Any, vocabulary: dict[int, str], top_k: int, seed: str) -> None:
    """Put a word into each masked place, drawn by the model's probabilities [masks x v]."""
    rng, allowed = random.Random(seed), list(vocabulary)
    for at, chances in zip(masked.places, probabilities[:, allowed], strict=True):
        before, original, after = core(masked.words[at])
        found = chances.topk(min(top_k + 1, len(allowed)))
        words = [vocabulary[allowed[number]] for number in found.indices.tolist()]
        rounded = [round(chance, 4) for chance in found.values.tolist()]
        likeliest = sorted((-chance, word) for chance, word in zip(rounded, words, strict=True) if word != original)
        if drawable := likeliest[:top_k]:
            (word,) = rng.choices([word for _, word in drawable], [1e-4 - chance for chance, _ in drawable])
            masked.words[at] = f"{before}{word}{after}"


def _whole_words(tokenizer: Any, spaced: bool) -> dict[int, str]:
    """Return the entries of the vocabulary that are words on their own, by id: the ones that may replace a word.

    Between spaces a word begins as the tokenizer marks it: no ## in WordPiece, a Ġ or ▁ in front in the byte-level
    and SentencePiece ones. In a script without spaces any piece of that script will do.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    mark = next((mark for mark in ("##", "Ġ", "▁") if any(token.startswith(mark) for token, _ in vocabulary)), "##")
    words = {}
    for token, number in vocabulary:
        begins = not token.startswith("##") if mark == "##" or not spaced else token.startswith(mark)
        if begins and number not in tokenizer.all_special_ids:
            word = tokenizer.convert_tokens_to_string([token]).strip()
            if replaceable(word) and (spaced or not word.isascii()):
                words[number] = word
    return words
