"""Nested values under dotted names, as MLflow lists them."""

from collections.abc import Iterator
from typing import Any


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, plain value) of nested mappings and lists, in order."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            # MLflow takes 250 letters, digits and _ - . space : in a name (and /, but not at every place)
            safe = "".join(mark if mark.isalnum() or mark in "_-. :" else "_" for mark in str(key)[:100])
            yield from flatten(inner, f"{prefix}.{safe}" if prefix else safe)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for number, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}.{number}")
    else:
        yield prefix, value
