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
HOLDS = {"array": ("list of sections", "[]"), "object": ("mapping to sections", ".NAME")}


def manual() -> str:
    """Return the page as Markdown."""
    return HEAD + "".join(_row(key, name, model, nested) for key, name, model, nested in _keys())


def doc_lines() -> dict[str, str]:
    """Return the meaning of each key, as the page names them: `ingest.sources[].path`, `….NAME.path`."""
    return {key: str(model["properties"][name].get("description", "")) for key, name, model, _ in _keys()}


def doc_line(key: str, lines: dict[str, str]) -> str:
    """Return the meaning of a key as it stands in params.yaml, such as `ingest.sources.0.path`.

    Args:
        key: dotted. Of a key within a mapping that has no sections, it is the mapping's.
        lines: of `doc_lines`.
    """
    places, found = [""], ""
    for part in key.split("."):
        within = [f"{place}.{part}" if place else part for place in places]
        within += [f"{place}.NAME" for place in places] + [f"{place}[]" for place in places if part.isdigit()]
        places = [place for place in within if any(known == place or known.startswith(f"{place}.") for known in lines)]
        found = next((lines[place] for place in places if place in lines), found)
    return found


def _keys() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any] | None]]:
    """Yield each key, its last part, the model that it belongs to and the section that it holds, if it holds one."""
    schema = Params.model_json_schema(by_alias=True)

    def within(model: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any] | None]]:
        for name, field in model["properties"].items():
            nested = _nested(field, schema["$defs"])
            yield f"{prefix}{name}", name, model, nested
            if nested is not None:
                yield from within(nested, f"{prefix}{name}{HOLDS.get(field.get('type', ''), ('', ''))[1]}.")

    return within(schema, "")


def _row(key: str, name: str, model: dict[str, Any], nested: dict[str, Any] | None) -> str:
    field = model["properties"][name]
    default = "required" if name in model.get("required", []) else _code(field.get("default"))
    kind = _kind(field)
    if nested is not None:
        kind = HOLDS.get(field.get("type", ""), ("section", ""))[0]
        default = "required" if default == "required" else "–"
    return f"| `{key}` | {kind} | {default} | {_limits(field)} | {_cell(field.get('description', ''))} |\n"


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
