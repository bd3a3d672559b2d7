"""Back-translation (Sennrich et al. 2016): into another language and back, so that the same is said in other words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.augment.methods.protocol import Tools
from stages.augment.translation_cache import TranslationCache
from stages.augment.translators import open_translator, translator_name
from stages.common.digests import sha256_path, sha256_value


def back_translation(texts: Sequence[str], seeds: Sequence[str], settings: Any, tools: Tools) -> list[str]:
    """Translate there and back; what cannot be translated whole comes back as it is.

    Nothing is drawn, so the seeds are not used: beam search finds the same translation each time. Translations are
    kept in `.attune/translations`, so that another run, or one that was cut short, goes on where this one was.
    """
    there = _translate(set(texts), "forward", settings, tools)
    back = _translate({text for text in there.values() if text}, "back", settings, tools)
    return [back.get(there[text] or "") or text for text in texts]


def _translate(texts: set[str], way: str, settings: Any, tools: Tools) -> dict[str, str | None]:
    """Return the translation of each text; None where it is too long for the model."""
    folder = tools.resource(f"translation_{way}")
    with TranslationCache(tools.work_folder("translations"), _digest(folder, settings)) as cache:
        known = cache.get(texts)
        left = sorted(texts - known.keys(), key=lambda text: (len(text), text))
        print(f"  back_translation, {way}: {len(texts):,} texts, {len(known):,} of them from earlier", flush=True)
        translator = open_translator(folder, settings, f"ingest.resources.translation.{way}") if left else None
        for start in range(0, len(left), settings.batch_size):
            batch = left[start : start + settings.batch_size]
            found = dict(zip(batch, translator(batch), strict=True))  # type: ignore[misc]
            cache.put(found)
            known |= found
    if too_long := sum(text is None for text in known.values()):
        print(f"  back_translation, {way}: {too_long:,} texts too long for the model or its answer, left as they are")
    return known


def _digest(folder: Path, settings: Any) -> str:
    """Name all that a translation depends on besides the text."""
    return sha256_value(
        [sha256_path(folder), translator_name(folder), settings.num_beams, settings.max_new_tokens],
    )
