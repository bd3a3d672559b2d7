"""Read `params.yaml` and report what is wrong in it, and on which line."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from stages.common.errors import AttuneError
from stages.common.params.reference import all_keys, known_keys
from stages.common.params.root import Params
from stages.common.params.section import similar

PARAMS_FILE = Path("params.yaml")
GLUED = re.compile(r"\s*(?:- )*([\w.-]+):([^\s:].*)")  # `key:value`, which is one text
OPEN_QUOTE = re.compile(r"""(?:[:,\[{-]\s+|[\[{])(["'])(?:(?!\1).)*$""")  # one that its line does not close
NO_BLANK = "there is no blank after the colon"
OF_NO_STAGE = ("tune", "review")  # DVC does not ask for these


def load_params(path: Path = PARAMS_FILE, *, complete: bool = False) -> Params:
    """Read and check a params file; a `complete` one has every section, as DVC asks for.

    An AttuneError names file, line, key and the likely spelling of everything that is wrong.
    """
    data = read_yaml(path)
    params = check_params(data, str(path))
    names = [field.alias or name for name, field in Params.model_fields.items() if name not in OF_NO_STAGE]
    if complete and (left_out := [name for name in names if name not in data]):
        fix = f"write `{left_out[0]}: {{}}` for a section's defaults, or copy it from a file in recipes/"
        raise AttuneError(f"{path}: {', '.join(left_out)} left out", fix)
    return params


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2 (`no` is text, `1e-4` a number), keeping line numbers; an AttuneError if it is missing or none."""
    try:
        content = path.read_bytes()
        text = content.decode()
        return YAML(typ="rt").load(text)
    except (UnicodeDecodeError, ReaderError) as error:
        at = error.start if isinstance(error, UnicodeDecodeError) else len(text[: error.position].encode())
        what = f"{path}:{content[:at].count(10) + 1}: {content[at : at + 1]!r} is nothing that YAML in UTF-8 may hold"
        raise AttuneError(what, "write that line again, and save the file as UTF-8") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        lines = text.splitlines()[: mark.line + 1 if mark else None]
        for number in range(len(lines), 0, -1):
            if (glued := GLUED.fullmatch(lines[number - 1])) and glued[1] in {name for _, name, _ in all_keys()}:
                value = glued[2].partition(" #")[0].rstrip()  # without the comment
                raise AttuneError(f"{path}:{number}: {NO_BLANK}", f"write `{glued[1]}: {value}`") from None
        where = f"{path}:{_line_of(error, text)}" if isinstance(error, MarkedYAMLError) and mark else str(path)
        what = f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}"
        fix = "look for a colon, quote or bracket that is missing, an indentation other than that of its neighbours, "
        raise AttuneError(what, f"{fix}a tab (indent with spaces), a key that is there twice") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:200]
        fix = "run in the project's folder, where it is UTF-8 text; recipes/ has files to begin with"
        raise AttuneError(f"{path}: cannot be read: {reason}", fix) from None


def _line_of(error: MarkedYAMLError, text: str) -> int:
    """Return the number of the line with the mistake, which may be above the one in which YAML gives up."""
    last = min(error.problem_mark.line + 1, text.count("\n") + 1)
    if error.context_mark and re.match("while (scanning|parsing a flow)", error.context or ""):
        return int(error.context_mark.line) + 1
    lines = [re.sub(r"(^|\s)#.*", "", line).rstrip() for line in text.splitlines()[:last]]
    opened = (number for number in range(len(lines), 0, -1) if OPEN_QUOTE.search(lines[number - 1]))
    above = next((number for number in range(last - 1, 0, -1) if lines[number - 1]), last)
    is_text = not re.search(r":(\s|$)", lines[above - 1])  # with which the line below could not go on
    return next(opened, above if is_text else last)


def check_params(data: Any, name: str = "params.yaml") -> Params:
    """Check already parsed params of the file `name`; an AttuneError lists every fault, a line each."""
    try:
        return Params.model_validate({} if data is None else data)
    except ValidationError as error:
        faults: dict[tuple[int | str, ...], str] = {}
        missing: set[tuple[int | str, ...]] = set()
        misspelt: set[tuple[int | str, ...]] = set()
        for fault in error.errors(include_url=False):
            keys, line = _locate(fault, data)
            if fault["type"] == "missing":
                missing.add(keys)
            if fault["type"] == "extra_forbidden":
                misspelt.update(
                    (*keys[:-1], word) for word in get_close_matches(str(keys[-1]), known_keys(keys[:-1]), n=1)
                )
            if keys not in faults or (fault["type"] == "literal_error" and isinstance(fault["input"], str)):
                place = [f"{name}:{line}" if line else name, *([".".join(map(str, keys))] if keys else [])]
                faults[keys] = ": ".join([*place, _message(fault, keys)])
        for keys in missing & misspelt:  # one mistake, reported where it is
            del faults[keys]
        # A value that may be a word or hold keys has a fault of each kind: the one further in is about what is meant.
        lines = [text for keys, text in faults.items() if not any(keys == key[:-1] for key in faults if key)]
        what = f"{name} has {len(lines)} fault{'s'[: len(lines) - 1]}:\n  " + "\n  ".join(lines)
        raise AttuneError(what, f"correct {name}; docs/params.md explains every key") from None


def _locate(fault: ErrorDetails, data: Any) -> tuple[tuple[int | str, ...], int | None]:
    """Return the keys that lead to a fault, without pydantic's names for the kinds of a value, and its line."""
    keys: list[int | str] = []
    line = None
    for part in fault["loc"]:
        inside = part in data if isinstance(data, Mapping) else isinstance(data, list) and part in range(len(data))
        if inside:
            mark = (getattr(getattr(data, "lc", None), "data", None) or {}).get(part)
            of_value = isinstance(fault["input"], str) and isinstance(data, Mapping) and fault["type"] == "model_type"
            line, data = mark[2 if of_value else 0] + 1 if mark else line, data[part]
        if inside or (fault["type"] in ("missing", "value_error") and part in known_keys(keys)):
            keys.append(part)
    if fault["type"] == "invalid_key" and fault["input"] is None:
        mark = (getattr(getattr(data, "lc", None), "data", None) or {}).get(None)
        return (*keys, "null"), mark[0] + 1 if mark else line
    return tuple(keys), line


def _message(fault: ErrorDetails, keys: tuple[int | str, ...]) -> str:
    value = fault["input"]
    quoted = shortened(dict(value) if isinstance(value, Mapping) else value)[:60]
    unknown = fault["type"] == "extra_forbidden"
    of_key = unknown or (value is None and bool(keys))
    glued = GLUED.fullmatch(str(keys[-1] if of_key else value)) if of_key or isinstance(value, str) else None
    if glued and (value is None or glued[1] in known_keys(keys[:-1] if unknown else keys)):
        return f"{NO_BLANK}: write `{glued[1]}: {glued[2].split()[0]}`"
    match fault["type"]:
        case "extra_forbidden":
            allowed = known_keys(keys[:-1])
            return "unknown key" + (similar(keys[-1], allowed) or f"; known here: {', '.join(allowed)}")
        case "missing":
            return "this key is required"
        case "model_type":
            return f"must hold keys, not {quoted} (a section with nothing to say is left out or written as {{}})"
        case "too_short":
            return "must not be empty"
        case "value_error":
            return str(fault["ctx"]["error"])
        case "literal_error":
            words = fault["ctx"]["expected"].replace(" or ", ", ")
            close = similar(value, [word.strip("'") for word in words.split(", ")])
            return f"must be one of {words}, not {quoted}{close}"
        case _:
            return f"{fault['msg'][0].lower()}{fault['msg'][1:]}, not {quoted}"
