"""Back-translation (Sennrich et al. 2016): into another language and back, so that the same is said in other words.

Two engines run seq2seq models: transformers, and CTranslate2, which is several times as fast on a CPU.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stages.augment.pretrained import open_model, open_tokenizer
from stages.augment.simple import Resource
from stages.common.errors import AttuneError

# From token ids of texts to those of their translations; the longest input; and what ends a whole translation.
Engine = tuple[Callable[[list[list[int]]], list[list[int]]], int, set[int]]

CTRANSLATE2_INPUT = 1024  # tokens; CTranslate2 cuts longer texts off without a word


def back_translation(texts: Sequence[str], seeds: Sequence[str], settings: Any, resource: Resource) -> list[str]:
    """Translate there and back; what cannot be translated whole comes back as it is.

    Nothing is drawn, so the seeds are not used: beam search finds the same translation each time.
    """
    there = _translate(set(texts), "forward", settings, resource)
    back = _translate({text for text in there.values() if text}, "back", settings, resource)
    return [back.get(there[text] or "") or text for text in texts]


def _translate(texts: set[str], way: str, settings: Any, resource: Resource) -> dict[str, str | None]:
    """Return the translation of each text; None where it is too long for the model, or the answer is."""
    print(f"  back_translation, {way}: {len(texts):,} texts", flush=True)
    folder, key = resource(f"translation_{way}"), f"ingest.resources.translation.{way}"
    tokenizer = open_tokenizer(folder, key)
    converted = (folder / "model.bin").is_file() and not any(folder.glob("*.safetensors"))
    generate, limit, ends = (_ctranslate2 if converted else _transformers)(folder, tokenizer, settings, key)
    ordered = sorted(texts, key=lambda text: (len(text), text))
    made: dict[str, str | None] = dict.fromkeys(ordered)
    for start in range(0, len(ordered), settings.batch_size):
        ids = {text: tokenizer(text)["input_ids"] for text in ordered[start : start + settings.batch_size]}
        fitting = {text: given for text, given in ids.items() if len(given) <= limit}
        answers = generate(list(fitting.values())) if fitting else []
        for text, answer in zip(fitting, answers, strict=True):
            if ends & set(answer):
                made[text] = tokenizer.decode(answer, skip_special_tokens=True).strip() or None
    if too_long := sum(text is None for text in made.values()):
        print(f"  back_translation, {way}: {too_long:,} texts too long for the model or its answer, left as they are")
    return made


def _transformers(folder: Path, tokenizer: Any, settings: Any, key: str) -> Engine:
    """Open a model that translates from one language into one other, such as those of MarianMT."""
    import torch

    model, limit = open_model(folder, "AutoModelForSeq2SeqLM", key, tokenizer)
    end = model.generation_config.eos_token_id

    def generate(ids: list[list[int]]) -> list[list[int]]:
        given = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            made = model.generate(
                **given, num_beams=settings.num_beams, max_new_tokens=settings.max_new_tokens, do_sample=False
            )
        return made[:, 1:].tolist()  # type: ignore[no-any-return]  # the first token starts the decoder

    return generate, limit, set(end) if isinstance(end, list) else {end}


def _ctranslate2(folder: Path, tokenizer: Any, settings: Any, key: str) -> Engine:
    """Open a model as ct2-transformers-converter writes it beside the tokenizer's files."""
    import torch

    try:
        import ctranslate2

        model = ctranslate2.Translator(str(folder), device="auto", intra_threads=torch.get_num_threads())
    except ImportError:
        raise AttuneError(
            f"{key}: a model for CTranslate2, which is not installed",
            "pip install ctranslate2, or name the model's folder as transformers saves it",
        ) from None
    except (RuntimeError, ValueError) as error:
        raise AttuneError(
            f"{key}: CTranslate2 cannot open the model there ({error})", "convert it again with this version"
        ) from None

    def generate(ids: list[list[int]]) -> list[list[int]]:
        made = model.translate_batch(
            [tokenizer.convert_ids_to_tokens(one) for one in ids],
            beam_size=settings.num_beams,
            max_decoding_length=settings.max_new_tokens,
            return_end_token=True,
        )
        return [tokenizer.convert_tokens_to_ids(one.hypotheses[0]) for one in made]

    return generate, min(tokenizer.model_max_length, CTRANSLATE2_INPUT), {tokenizer.eos_token_id}
