"""Methods with pretrained models that `ingest` brought in: safetensors weights, no network, no code of their own.

Contextual augmentation (Kobayashi 2018): a masked language model replaces words by others that are likely in their
place. Back-translation (Sennrich et al. 2016): seq2seq models that translate from one language into one other, such as
those of MarianMT, translate into another language and back.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.augment.words import Resource, replaceable, replaceable_words, split
from stages.common.errors import AttuneError

MASKED_LM = "ingest.resources.masked_lm"


class Masked(NamedTuple):
    """The words of a text, those that are masked (marks before, word, marks after), and the ids of the masked text."""

    words: list[str]
    separator: str
    hidden: dict[int, tuple[str, str, str]]
    input_ids: list[int]


def contextual(texts: Sequence[str], seeds: Sequence[str], settings: Any, resource: Resource) -> list[str]:
    """Replace `probability * len(words)` random words by ones the model finds likely there, at least one.

    All masks of a text are filled at once. A word is drawn from the `top_k` likeliest whole words other than the
    original by the model's own probabilities, rounded to four digits: floats differ in the last digits with the other
    texts in a batch, and the words drawn shall not.
    """
    import torch

    folder = resource("masked_lm")
    tokenizer = _open("tokenizer", "AutoTokenizer", folder, MASKED_LM)
    model, limit = _open_model("AutoModelForMaskedLM", folder, MASKED_LM, tokenizer)
    masked = [
        _mask(text, seed, settings.probability, tokenizer, limit) for text, seed in zip(texts, seeds, strict=True)
    ]
    vocabularies = {spaced: _whole_words(tokenizer, spaced) for spaced in (True, False)}
    fillable = [index for index, text in enumerate(masked) if text.hidden]
    order = sorted(fillable, key=lambda index: (len(masked[index].input_ids), index))
    for start in range(0, len(order), settings.batch_size):
        batch = order[start : start + settings.batch_size]
        inputs = tokenizer.pad({"input_ids": [masked[index].input_ids for index in batch]}, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**inputs.to(model.device)).logits  # [b x s x v]
        for index, row, ids in zip(batch, logits, inputs["input_ids"], strict=True):
            probabilities = row[ids == tokenizer.mask_token_id].softmax(dim=-1).cpu()  # [masks x v]
            vocabulary = vocabularies[bool(masked[index].separator)]
            _fill(masked[index], probabilities, vocabulary, settings.top_k, f"{seeds[index]} words")
    return [text.separator.join(text.words) for text in masked]


def _mask(text: str, seed: str, probability: float, tokenizer: Any, limit: int) -> Masked:
    rng, (words, separator) = random.Random(seed), split(text)
    cores = replaceable_words(words)
    chosen = sorted(rng.sample(list(cores), min(len(cores), max(1, round(probability * len(words))))))
    if not chosen or tokenizer.mask_token in text:  # indistinguishable from ours
        return Masked(words, separator, {}, [])
    masked = list(words)
    for position in chosen:
        before, _, after = cores[position]
        masked[position] = f"{before}{tokenizer.mask_token}{after}"
    ids = tokenizer(separator.join(masked), truncation=True, max_length=limit)["input_ids"]
    hidden = {position: cores[position] for position in chosen[: ids.count(tokenizer.mask_token_id)]}
    return Masked(words, separator, hidden, ids)


def _fill(masked: Masked, probabilities: Any, vocabulary: dict[int, str], top_k: int, seed: str) -> None:
    """Put a word into each masked position, drawn by the model's probabilities [masks x v]."""
    rng, allowed = random.Random(seed), list(vocabulary)
    for (position, core), of_words in zip(masked.hidden.items(), probabilities[:, allowed], strict=True):
        before, original, after = core
        top = of_words.topk(min(top_k + 1, len(allowed)))
        words = [vocabulary[allowed[number]] for number in top.indices.tolist()]
        rounded = [round(probability, 4) for probability in top.values.tolist()]
        ordered = sorted((-probability, word) for probability, word in zip(rounded, words, strict=True))
        if candidates := [(word, 1e-4 - negative) for negative, word in ordered if word != original][:top_k]:
            (word,) = rng.choices([word for word, _ in candidates], [weight for _, weight in candidates])
            masked.words[position] = f"{before}{word}{after}"


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


def back_translation(texts: Sequence[str], seeds: Sequence[str], settings: Any, resource: Resource) -> list[str]:
    """Translate into another language and back; a text that cannot be translated whole stays as it is.

    Nothing is drawn, so the seeds are not used: beam search finds the same translation each time.
    """
    forward = _translate(set(texts), "forward", settings, resource)
    back = _translate({text for text in forward.values() if text}, "back", settings, resource)
    return [back.get(forward[text] or "") or text for text in texts]


def _translate(texts: set[str], way: str, settings: Any, resource: Resource) -> dict[str, str | None]:
    """Return the translation of each text; None where it is too long for the model, or the answer is."""
    import torch

    print(f"  back_translation, {way}: {len(texts):,} texts", flush=True)
    folder, key = resource(f"translation_{way}"), f"ingest.resources.translation.{way}"
    tokenizer = _open("tokenizer", "AutoTokenizer", folder, key)
    model, limit = _open_model("AutoModelForSeq2SeqLM", folder, key, tokenizer)
    end = model.generation_config.eos_token_id  # of a whole translation
    ends = set(end) if isinstance(end, list) else {end}
    options = {"num_beams": settings.num_beams, "max_new_tokens": settings.max_new_tokens, "do_sample": False}
    ordered = sorted(texts, key=lambda text: (len(text), text))
    translations: dict[str, str | None] = dict.fromkeys(ordered)
    for start in range(0, len(ordered), settings.batch_size):
        ids = {text: tokenizer(text)["input_ids"] for text in ordered[start : start + settings.batch_size]}
        fitting = [text for text, tokens in ids.items() if len(tokens) <= limit]
        if not fitting:
            continue
        inputs = tokenizer.pad({"input_ids": [ids[text] for text in fitting]}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            answers = model.generate(**inputs, **options)[:, 1:].tolist()  # the first token starts the decoder
        for text, answer in zip(fitting, answers, strict=True):
            if ends & set(answer):
                translations[text] = tokenizer.decode(answer, skip_special_tokens=True).strip() or None
    if too_long := sum(text is None for text in translations.values()):
        print(f"  back_translation, {way}: {too_long:,} texts too long for the model or its answer, left as they are")
    return translations


def _open_model(kind: str, folder: Path, key: str, tokenizer: Any) -> tuple[Any, int]:
    """Return a model for inference, float32, on the GPU if there is one; and its longest input in tokens.

    An AttuneError if it is another kind of model, or part of its weights is missing and would be random.
    """
    import torch

    options = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
    model, loading = _open("model", kind, folder, key, **options)
    if missing := sorted(loading["missing_keys"]):
        what = f"{key}: weights of this model's head are missing ({missing[0]} and so on): it was not trained for this"
        fix = f"name a model whose folder {kind} can load whole: a sentence encoder, say, has no language-model head"
        raise AttuneError(what, fix)
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return model, min(tokenizer.model_max_length, positions)


def _open(what: str, kind: str, folder: Path, key: str, **options: Any) -> Any:
    """Load with a class of transformers; `key` names the params to correct if it cannot."""
    import transformers

    try:
        load = getattr(transformers, kind).from_pretrained
        return load(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:
        message = " ".join(str(error).split())
        raise AttuneError(
            f"{key}: transformers cannot open the {what} there ({type(error).__name__}: {message[:300]})",
            "name a folder with config.json, .safetensors weights and the tokenizer's files, of an architecture that "
            "is part of transformers",
        ) from None
