"""The score that decides whether a model is better, and how sure its interval is."""

from collections.abc import Mapping
from typing import Any

from flows.reviewing.findings import Effect, Gain, Review

CONFIDENCE = 0.95  # where params.yaml leaves it to the default
USUAL = "macrof1"


def score_of(review: Review, effect: Effect) -> Gain | None:
    """Return the score that decides: that of the champion's gate, or else macro-F1, or else the first."""
    asked = _setting(review.head.data, "register", "gates", "champion", "metric")
    name = _same(asked) if isinstance(asked, str) else USUAL
    found = [gain for gain in effect.scores if _same(gain.name) == name]
    found += [gain for gain in effect.scores if _same(gain.name) == USUAL]
    return next(iter([*found, *effect.scores]), None)


def percent_of(review: Review) -> str:
    """Return the confidence of the intervals: `95 %`."""
    asked = _setting(review.head.data, "evaluate", "bootstrap", "confidence")
    share = asked if isinstance(asked, float) and 0 < asked < 1 else CONFIDENCE
    return f"{100 * share:g} %"


def _setting(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _same(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
