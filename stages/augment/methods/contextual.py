"""Contextual augmentation (Kobayashi 2018): words give way to what a masked language model would put in their place."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stages.augment.methods.simple import Resource
from stages.augment.pretrained import open_model, open_tokenizer
from stages.augment.words import core, joined, replaceable, split

KEY = "ingest.resources.masked_lm"


@dataclass
class Masked:
    """A text with some words masked.

    Attributes:
        words: the words as they are, and in the end as they are to be.
        joint: what joins them.
        places: which words are masked, in order.
        input_ids: of the masked text, cut off at the model's limit.
    """

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
    model = open_model(folder, "AutoModelForMaskedLM", KEY)
    positions = getattr(model.config, "max_position_embeddings", None)
    limit = min(tokenizer.model_max_length, positions or tokenizer.model_max_length)
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
    return [joined(one.words, one.joint) for one in masked]


def _mask(text: str, probability: float, rng: random.Random, tokenizer: Any, limit: int) -> Masked:
    words, joint = split(text)
    cores = [core(word) for word in words]
    places = [at for at, (_, inner, _) in enumerate(cores) if replaceable(inner)]
    chosen = sorted(rng.sample(places, min(len(places), max(1, round(probability * len(words))))))
    if tokenizer.mask_token in text:  # it could not be told from ours
        chosen = []
    hidden = list(words)
    for at in chosen:
        before, _, after = cores[at]
        hidden[at] = f"{before}{tokenizer.mask_token}{after}"
    ids = tokenizer(joined(hidden, joint), truncation=True, max_length=limit)["input_ids"] if chosen else []
    return Masked(words, joint, chosen[: ids.count(tokenizer.mask_token_id)], ids)


def _fill(masked: Masked, probabilities: Any, vocabulary: dict[int, str], top_k: int, seed: str) -> None:
    """Put a word into each masked place, drawn by the model's probabilities [masks x v]."""
    rng = random.Random(seed)
    allowed = list(vocabulary)
    for at, chances in zip(masked.places, probabilities[:, allowed], strict=True):
        before, original, after = core(masked.words[at])
        found = chances.topk(min(top_k + 1, len(allowed)))
        likeliest = [
            (-round(chance, 4), word)
            for chance, number in zip(found.values.tolist(), found.indices.tolist(), strict=True)
            if (word := vocabulary[allowed[number]]) != original
        ]
        if drawable := sorted(likeliest)[:top_k]:
            weights = [1e-4 - chance for chance, _ in drawable]
            (word,) = rng.choices([word for _, word in drawable], weights)
            masked.words[at] = f"{before}{word}{after}"


def _whole_words(tokenizer: Any, spaced: bool) -> dict[int, str]:
    """Return the entries of the vocabulary that are words on their own, by id: the ones that may replace a word.

    Between spaces a word begins as the tokenizer marks it: no ## in WordPiece, a Ġ or ▁ in front in the byte-level
    and SentencePiece ones. In a script without spaces any piece of that script will do.
    """
    vocabulary = tokenizer.get_vocab()
    mark = next((mark for mark in ("##", "Ġ", "▁") if any(token.startswith(mark) for token in vocabulary)), "##")

    def begins(token: str) -> bool:
        return not token.startswith("##") if mark == "##" or not spaced else token.startswith(mark)

    def pieces() -> Iterator[tuple[int, str]]:
        for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
            if begins(token) and number not in tokenizer.all_special_ids:
                word = tokenizer.convert_tokens_to_string([token]).strip()
                if replaceable(word) and (spaced or not word.isascii()):
                    yield number, word

    return dict(pieces())
