"""A value that is another now, in a few characters: masked, harmless, and cut to where the two differ."""

import json
from collections.abc import Sequence
from typing import Any

from stages.common.shown import shown

MOST = 40  # characters shown of a value
BEFORE = 12  # of these, before the first character that differs
AROUND = 400  # characters that are masked on each side of it, so that no half of an address is shown


def value_change(old: Any, new: Any) -> str:
    """Return `'negative' → 'positive'`; of long values, the part around the first difference."""
    from stages.common.pii import mask_text

    texts = [_plain(old), _plain(new)]
    start = max(0, first_other(*texts) - AROUND)
    masked = [mask_text(text[start : start + 2 * AROUND], None) for text in texts]
    first = max(0, first_other(*masked) - BEFORE) if max(map(len, masked)) > MOST else 0
    cut = ["…" if start + first else "", *(shown(text[first:], MOST) for text in masked)]
    return f"{cut[0]}{cut[1]} → {cut[0]}{cut[2]}"


def first_other(old: Sequence[object], new: Sequence[object]) -> int:
    """Return the first place at which two texts, or two pieces of bytes, differ, or one of them ends."""
    both = min(len(old), len(new))
    return next((at for at, (was, now) in enumerate(zip(old, new, strict=False)) if was != now), both)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value}'"
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)
