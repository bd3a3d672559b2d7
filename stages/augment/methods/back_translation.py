"""Back-translation (Sennrich et al. 2016): into another language and back, so that the same is said in other words.

Two engines run seq2seq models: transformers, and CTranslate2, which is several times as fast on a CPU.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stages.augment.methods.simple import Resource
from stages.augment.pretrained import open_model, open_tokenizer
from stages.common.errors import AttuneError

# From texts to translations; None where a text is too long for the model, or its translation for max_new_tokens.
Translator = Callable[[Sequence[str]], list[str | None]]

CTRANSLATE2_INPUT = 1024  # tokens; CTranslate2 cuts longer texts off without a word


def back_translation(texts: Sequence[str], seeds: Sequence[str], settings: Any, resource: Resource) -> list[str]:
    """Translate there and back; what cannot be translated whole comes back as it is.

    Nothing is drawn, so the seeds are not used: beam search finds the same translation each time.
    """
    there = _translate(set(texts), "forward", settings, resource)
    back = _translate({text for text in there.values() if text}, "back", settings, resource)
    return [back.get(there[text] or "") or text for text in texts]


def _translate(texts: set[str], way: str, settings: Any, resource: Resource) -> dict[str, str | None]:
    """Return the translation of each text; None where it is too long for the model."""
    print(f"  back_translation, {way}: {len(texts):,} texts", flush=True)
    translator = open_translator(resource(f"translation_{way}"), settings, f"ingest.resources.translation.{way}")
    ordered = sorted(texts, key=lambda text: (len(text), text))
    made: dict[str, str | None] = {}
    for start in range(0, len(ordered), settings.batch_size):
        batch = ordered[start : start + settings.batch_size]
        made.update(zip(batch, translator(batch), strict=True))
    if too_long := sum(text is None for text in made.values()):
        print(f"  back_translation, {way}: {too_long:,} texts too long for the model or its answer, left as they are")
    return made


def open_translator(folder: Path, settings: Any, key: str) -> Translator:
    """Open a model that translates from one language into one other, such as those of MarianMT.

    Args:
        folder: a model as transformers saves it, or as ct2-transformers-converter does beside the tokenizer's files.
        settings: `num_beams` and `max_new_tokens`.
        key: names the params to correct.

    Raises:
        AttuneError: if the folder holds no such model, or one for CTranslate2 and that is not installed.
    """
    tokenizer = open_tokenizer(folder, key)
    if not (folder / "model.bin").is_file() or any(folder.glob("*.safetensors")):
        return _transformers(folder, tokenizer, settings, key)
    if not find_spec("ctranslate2"):
        raise AttuneError(
            f"{key}: a model for CTranslate2, which is not installed",
            "pip install ctranslate2, or name the model's folder as transformers saves it",
        )
    return _ctranslate2(folder, tokenizer, settings, key)


def _transformers(folder: Path, tokenizer: Any, settings: Any, key: str) -> Translator:
    import torch

    model = open_model(folder, "AutoModelForSeq2SeqLM", key)
    positions = getattr(model.config, "max_position_embeddings", None)
    limit = min(tokenizer.model_max_length, positions or tokenizer.model_max_length)
    end = model.generation_config.eos_token_id
    ends = set(end) if isinstance(end, list) else {end}

    def translate(texts: Sequence[str]) -> list[str | None]:
        def whole(made: Any) -> str | None:
            finished = ends & set(made[1:].tolist())  # the first token starts the decoder, and may be the same
            return tokenizer.decode(made, skip_special_tokens=True).strip() or None if finished else None

        ids = [tokenizer(text)["input_ids"] for text in texts]
        fitting = [one for one in ids if len(one) <= limit]
        if not fitting:
            return [None] * len(texts)
        given = tokenizer.pad({"input_ids": fitting}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            made = model.generate(
                **given, num_beams=settings.num_beams, max_new_tokens=settings.max_new_tokens, do_sample=False
            )
        answers = iter(made)
        return [whole(next(answers)) if len(one) <= limit else None for one in ids]

    return translate


def _ctranslate2(folder: Path, tokenizer: Any, settings: Any, key: str) -> Translator:
    import ctranslate2
    import torch

    limit = min(tokenizer.model_max_length, CTRANSLATE2_INPUT)
    try:
        model = ctranslate2.Translator(str(folder), device="auto", intra_threads=torch.get_num_threads())
    except (RuntimeError, ValueError) as error:
        raise AttuneError(
            f"{key}: CTranslate2 cannot open the model there ({error})", "convert it again with this version"
        ) from None

    def translate(texts: Sequence[str]) -> list[str | None]:
        def whole(tokens: list[str]) -> str | None:
            finished = tokens and tokens[-1] == tokenizer.eos_token
            ids = tokenizer.convert_tokens_to_ids(tokens)
            return tokenizer.decode(ids, skip_special_tokens=True).strip() or None if finished else None

        sources = [tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) for text in texts]
        fitting = [source for source in sources if len(source) <= limit]
        answers = iter(
            model.translate_batch(
                fitting,
                beam_size=settings.num_beams,
                max_decoding_length=settings.max_new_tokens,
                return_end_token=True,
            )
        )
        return [whole(next(answers).hypotheses[0]) if len(source) <= limit else None for source in sources]

    return translate
