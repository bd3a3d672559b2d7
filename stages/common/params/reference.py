"""docs/params.md, written from the models: every key with its type, default, range and meaning; docs/tasks.md."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from stages.common.params.root import Params
from stages.common.params.tasks import task_names, task_spec

HEAD = """# Parameters

Every key of `params.yaml`. A section may be left empty (`augment: {}`) and a key left out: then the default holds.
This page is written from the code by `make schema`; `params.schema.json` has the same for editors.

| key | type | default | range | meaning |
|---|---|---|---|---|
"""
TASKS_PAGE = Path("docs/tasks.md")
TASKS_HEAD = """# Tasks

`task:` in `params.yaml` says what the model learns to do. Of the scores the first is the main one, and ↓ marks those of
which less is better; the first loss is the default. A knob is a key, or one value of it, that not all tasks have; to
set one of another task is an error. This table is written from `stages/tasks/*.toml` by `make schema`.

| task | learns | scores | losses | baselines | knobs |
|---|---|---|---|---|---|
"""
HOLDS = {"array": ("list of sections", "[]"), "object": ("mapping to sections", ".NAME")}
TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}
Schema = dict[str, Any]


def reference() -> str:
    """Return the page as Markdown."""
    page = HEAD
    for key, field, required, section in _rows():
        kind = HOLDS.get(field.get("type", ""), ("section", ""))[0] if section else _kind(field)
        default = "required" if required else "–" if section else _code(field.get("default"))
        meaning = field["description"].replace("|", "\\|").replace("<", "&lt;")
        page += f"| `{key}` | {kind} | {default} | {_limits(field)} | {meaning} |\n"
    return page


def tasks_page() -> str:
    """Return docs/tasks.md as Markdown, with the sections that it has now."""
    page = TASKS_HEAD
    for spec in map(task_spec, task_names()):
        scores = [f"`{score.name}`{'' if score.greater_is_better else ' ↓'}" for score in spec.scores]
        columns = [scores, *([f"`{name}`" for name in names] for names in (spec.losses, spec.baselines, spec.knobs))]
        page += f"| `{spec.name}` | {spec.title} | {' | '.join(', '.join(column) or '–' for column in columns)} |\n"
    return "\n## ".join([page, *TASKS_PAGE.read_text(encoding="utf-8").split("\n## ")[1:]])


def doc_line(key: str) -> str:
    """Return the meaning of a key as it stands in params.yaml, such as `ingest.sources.0.path`.

    A key within a mapping that has no sections, such as `ingest.labels.good`, has the mapping's.
    """
    fits = (meaning for parent, name, meaning in all_keys() if re.match(rf"{parent.pattern}\.?{name}(\.|$)", key))
    return "".join([*fits][-1:])  # the innermost


def known_keys(parts: Sequence[int | str]) -> list[str]:
    """Return the keys that may stand at a place of params.yaml."""
    place = ".".join(map(str, parts))
    return [name for pattern, name, _ in all_keys() if pattern.fullmatch(place)]


@cache
def all_keys() -> list[tuple[re.Pattern[str], str, str]]:
    """Return of each key a pattern of the places where it may stand, its name and its meaning."""
    keys = []
    for key, field, _, _ in _rows():
        parent, _, name = key.rpartition(".")
        pattern = re.escape(parent).replace(r"\[\]", r"\.\d+").replace("NAME", ".+")
        keys.append((re.compile(pattern), name, field["description"]))
    return keys


def _rows() -> Iterator[tuple[str, Schema, bool, bool]]:
    """Yield each key such as `ingest.sources[].path`, its schema, and whether it is required and holds a section."""
    schema = Params.model_json_schema(by_alias=True)

    def within(model: Schema, prefix: str) -> Iterator[tuple[str, Schema, bool, bool]]:
        for name, field in model["properties"].items():
            options = [field, field.get("items", {}), field.get("additionalProperties", {}), *field.get("anyOf", [])]
            sections = [option["$ref"].rpartition("/")[2] for option in options if "$ref" in option]
            yield prefix + name, field, name in model.get("required", ()), bool(sections)
            for section in sections:  # one at most
                below = f"{prefix}{name}{HOLDS.get(field.get('type', ''), ('', ''))[1]}."
                yield from within(schema["$defs"][section], below)

    return within(schema, "")


def _kind(field: Schema) -> str:
    if "enum" in field:
        return "one of " + ", ".join(map(_code, field["enum"]))
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        return " or ".join(_kind(option) for option in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    kind = str(field.get("type", "value"))
    return TYPES.get(kind, kind)


def _limits(field: Schema) -> str:
    for option in [field, *field.get("anyOf", [])]:
        low = option.get("minimum", option.get("exclusiveMinimum"))
        high = option.get("maximum", option.get("exclusiveMaximum"))
        if low is not None or high is not None:
            least = f"{'over ' if 'exclusiveMinimum' in option else ''}{low}"
            if high is None:
                return least if "exclusiveMinimum" in option else f"{least} or more"
            return f"{least} to {'under ' if 'exclusiveMaximum' in option else ''}{high}"
    return "–"


def _code(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else '`""`'
