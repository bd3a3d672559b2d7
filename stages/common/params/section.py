"""The rules every section of `params.yaml` obeys."""

import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Part = Annotated[float, Field(ge=0.0, lt=1.0)]
Similarity = Annotated[float, Field(ge=0.3, le=1.0)]  # Jaccard's
T = TypeVar("T")
Faults = Iterator[tuple[str | tuple[str, ...], str]]


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = []
        for keys, reason in self._faults():
            kind = PydanticCustomError("value_error", "{error}", {"error": reason})
            parts = keys.split(".") if isinstance(keys, str) else keys
            location = tuple(int(part) if part.isdigit() else part for part in parts)
            errors.append(InitErrorDetails(type=kind, loc=location, input=None))
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self

    def _faults(self) -> Faults:
        """Yield the key to change within this section, or (), and the reason: settings contradict each other."""
        yield from ()


def key(default: T, description: str, **limits: Any) -> T:
    """Return pydantic's field of a key that may be left out; the description is for docs/params.md."""
    return Field(default, description=description, **limits)


def set_keys(section: Section, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the keys that are set to other than their default, down to single ones, each with its value."""
    for name, field in type(section).model_fields.items():
        value, path = getattr(section, name), (*above, field.alias or name)
        if value == field.default:
            continue
        if not isinstance(value, Section) or field.default is None:
            yield path, value
        parts = [((*path, str(number)), part) for number, part in enumerate(value)] if isinstance(value, list) else []
        for place, part in [(path, value), *parts]:
            if isinstance(part, Section):
                yield from set_keys(part, place)


def wrong_word(value: object, words: Collection[str]) -> str:
    """Return the message about a value that is none of the words that may stand there."""
    return f"must be one of {', '.join(map(repr, words))}, not {value!r}{similar(value, words)}"


def similar(word: object, words: Collection[str]) -> str:
    """Return a question about the likely spelling, or nothing."""
    return "".join(f"; did you mean {close!r}?" for close in get_close_matches(str(word), words, n=1))


def matching(pattern: str, reason: str) -> AfterValidator:
    """Return a validator of texts that match the pattern from end to end."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(reason)
        return text

    return AfterValidator(check)
