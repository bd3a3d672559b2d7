"""Other values in `params.yaml`: for a trial, and written back with every comment (ruamel.yaml's round trip)."""

import os
from collections.abc import Mapping, MutableMapping
from difflib import unified_diff
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.representer import RoundTripRepresenter

from stages.common.errors import AttuneError
from stages.common.params import PARAMS_FILE, check_params, read_yaml
from stages.common.params.finetune import OPTIONS

STRATEGY = "finetune.strategy"


class _Representer(RoundTripRepresenter):
    """Writes null as `null`, not as nothing."""


_Representer.add_representer(type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null"))


def change(data: Any, settings: Mapping[str, Any]) -> Any:
    """Set dotted keys in the mapping that a params file holds, in place; return it.

    With `finetune.strategy`, the options of other strategies become null: they would contradict it.

    Raises:
        AttuneError: if a key goes on below a setting that holds no keys.
    """
    for key, value in settings.items():
        *sections, last = key.split(".")
        inner = data
        for section in sections:
            if inner.get(section) is None:
                _put(inner, section, {})
            inner = inner[section]
            if not isinstance(inner, MutableMapping):
                raise AttuneError(f"{key}: {section} holds no keys", "see docs/params.md")
        _put(inner, last, value)
    if STRATEGY in settings:
        for name in {*OPTIONS} - {settings[STRATEGY]}:
            if data["finetune"].get(name) is not None:
                data["finetune"][name] = None
    return data


def _put(section: Any, key: str, value: Any) -> None:
    """Set a value; a new key goes before the last one, which carries the comment that heads the next section."""
    if key in section or not isinstance(section, CommentedMap):
        section[key] = value
    else:
        section.insert(max(0, len(section) - 1), key, value)


def patched(text: str, settings: Mapping[str, Any]) -> str:
    """Return a params file's text with other values and the same comments; an AttuneError if they contradict it."""
    yaml = YAML(typ="rt")
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(yaml.load(text), unchanged := StringIO())
    if unchanged.getvalue() != text:
        yaml.indent(mapping=2, sequence=2, offset=0)  # as DVC writes it when an experiment is applied
    data = change(yaml.load(text), settings)
    check_params(data)
    yaml.dump(data, result := StringIO())
    return result.getvalue()


def difference(before: str, after: str) -> list[str]:
    """Return the lines that differ, each with a - or a + before it."""
    lines = list(unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
    return [line for line in lines if not line.startswith("@@")]


def rewrite(settings: Mapping[str, Any], target: Path = PARAMS_FILE) -> list[str]:
    """Write params.yaml with other values, whole or not at all, there or as another file; return the lines that differ.

    Raises:
        AttuneError: if it is missing or no YAML, or the values contradict what else it says.
    """
    read_yaml(PARAMS_FILE)
    before = PARAMS_FILE.read_text(encoding="utf-8")
    after = patched(before, settings)
    new = target.with_name(f".{target.name}.new")
    new.write_text(after, encoding="utf-8")
    os.replace(new, target)
    return difference(before, after)
