"""docs/params.md, written from the models: every key with its type, default, range and meaning."""

from collections.abc import Iterator
from typing import Any

from stages.common.params.model import Params

HEAD = """# Parameters

Every key of `params.yaml`. A section may be left empty (`augment: {}`) and a key left out: then the default holds.
This page is written from the code by `make schema`; `params.schema.json` has the same for editors.

| key | type | default | range | meaning |
|---|---|---|---|---|
"""


def manual() -> str:
    """Return the page as Markdown."""
    schema = Params.model_json_schema(by_alias=True)
    return HEAD + "".join(_rows(schema, schema["$defs"], ""))


def _rows(model: dict[str, Any], models: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, field in model["properties"].items():
        key = f"{prefix}{name}"
        nested = _nested(field, models)
        holds = {"array": ("list of sections", "[]"), "object": ("mapping to sections", ".NAME")}.get(
            field.get("type", "")
        )
        default = "required" if name in model.get("required", []) else _code(field.get("default"))
        kind = _kind(field)
        if nested is not None:
            kind = holds[0] if holds else "section"
            default = "required" if default == "required" else "–"
        yield f"| `{key}` | {kind} | {default} | {_limits(field)} | {_cell(field.get('description', ''))} |\n"
        if nested is not None:
            yield from _rows(nested, models, f"{key}{holds[1] if holds else ''}.")


def _nested(field: dict[str, Any], models: dict[str, Any]) -> dict[str, Any] | None:
    """Return the section that a field holds, alone, as an option or in a list."""
    inside = field.get("additionalProperties", {})
    options = [
        field,
        field.get("items", {}),
        inside if isinstance(inside, dict) else {},
        *field.get("anyOf", []),
        *field.get("allOf", []),
    ]
    for option in options:
        found = models.get(str(option.get("$ref", "")).rpartition("/")[2])
        if found and "properties" in found:
            return dict(found)
    return None


def _kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return "one of " + ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        return " or ".join(_kind(option) for option in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    return {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}.get(
        str(field.get("type")), str(field.get("type", "value"))
    )


def _limits(field: dict[str, Any]) -> str:
    for option in [field, *field.get("anyOf", [])]:
        low = option.get("minimum", option.get("exclusiveMinimum"))
        high = option.get("maximum", option.get("exclusiveMaximum"))
        if low is not None or high is not None:
            low_sign = "over " if "exclusiveMinimum" in option else ""
            high_sign = "under " if "exclusiveMaximum" in option else ""
            return f"{low_sign}{low} to {high_sign}{high}" if high is not None else f"{low_sign}{low} or more"
    return "–"


def _code(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else '`""`'


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
