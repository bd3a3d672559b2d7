"""Read `params.yaml` and say, for people, what is wrong in it and on which line."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from stages.common.errors import AttuneError
from stages.common.params.model import Params

PARAMS_FILE = Path("params.yaml")
OF_NO_STAGE = ("tune", "review")  # DVC does not ask for these
OTHER_KINDS = {"bool_type": "true, false", "list_type": "a list", "dict_type": "keys with values"}
SHORT = Repr()
SHORT.maxlevel, SHORT.maxdict, SHORT.maxlist, SHORT.maxstring = 2, 3, 3, 50


def load_params(path: Path = PARAMS_FILE, *, complete: bool = False) -> Params:
    """Read and check a params file; a `complete` one has every section, as DVC asks for.

    Raises:
        AttuneError: naming file, line, key and the likely spelling of everything that is wrong.
    """
    data = read_yaml(path)
    if complete and isinstance(data, Mapping):
        wanted = [field.alias or name for name, field in Params.model_fields.items()]
        left_out = [name for name in wanted if name not in (*data, *OF_NO_STAGE)]
        if left_out and not any(name not in wanted for name in data):  # else a misspelt name is the better story
            raise AttuneError(
                f"{path}: {', '.join(left_out)} left out",
                f"write `{left_out[0]}: {{}}` for a section's defaults, or copy it from a file in recipes/",
            )
    return check_params(data, str(path))


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2 (as DVC does: `no` is text, `1e-4` a number), keeping line numbers.

    Raises:
        AttuneError: if the file is missing or is not YAML.
    """
    try:
        return YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AttuneError(
            f"{path}: no such file", "run in the project's folder, or copy a file from recipes/"
        ) from None
    except UnicodeDecodeError as error:
        raise AttuneError(f"{path}: not UTF-8 text ({error.reason})", "save it as UTF-8") from None
    except (RecursionError, ValueError, OSError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0][:200]
        raise AttuneError(f"{path}: cannot be read: {reason}", "start again from a file in recipes/") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        hint = "check the indentation and the quotes there"
        if isinstance(error, DuplicateKeyError):
            hint = "delete one of the two"
        elif "'\\t'" in problem:
            hint = "indent with spaces: YAML allows no tabs there"
        raise AttuneError(f"{where}: not valid YAML: {problem}", hint) from None


def check_params(data: Any, name: str = "params.yaml") -> Params:
    """Check already parsed params; `name` is the file that messages speak of.

    Raises:
        AttuneError: listing every fault, a line each.
    """
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        faults = [_describe(fault, data, name) for fault in _one_for_each(error.errors(include_url=False))]
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise AttuneError(
            f"{name} has {count}:\n  " + "\n  ".join(faults), f"correct {name}; docs/params.md explains every key"
        ) from None


def _one_for_each(faults: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leave one fault for a value that is neither one of some words nor of another kind; pydantic has one for each."""
    kept = list(faults)
    for word in faults:
        if word["type"] != "literal_error" or not str(word["loc"][-1]).startswith("literal["):
            continue
        place = word["loc"][:-1]
        others = [fault for fault in faults if fault["loc"][: len(place)] == place and fault is not word]
        if any(fault["type"] not in OTHER_KINDS for fault in others):  # of the other kind, with a fault inside
            kept.remove(word)
            continue
        word["ctx"] = {"expected": ", ".join([*_expected(word), *(OTHER_KINDS[fault["type"]] for fault in others)])}
        kept = [fault for fault in kept if fault not in others]
    return kept


def _describe(fault: ErrorDetails, data: Any, name: str) -> str:
    location = _location_in(data, fault["loc"])
    location += getattr(fault.get("ctx", {}).get("error"), "inside", ())  # FaultAt
    message = _message(fault, location)
    if location:
        key = ".".join(str(part) for part in location)
        message = f"{key}: {message}"
    else:  # two sections contradict each other: the message begins with the key to change
        location = [*message.split(" ")[0].split(".")]
    line = _line_of(data, location)
    return f"{name}:{line}: {message}" if line else f"{name}: {message}"


def _message(fault: ErrorDetails, location: Sequence[Any]) -> str:
    shown = _shorten(fault["input"])
    match fault["type"]:
        case "extra_forbidden":
            key = str(location[-1])
            allowed = _fields_at(Params, location[:-1])
            close = get_close_matches(key, allowed, n=1, cutoff=0.6)
            return "unknown key" + (f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(allowed)}")
        case "missing":
            return "this key is required"
        case "model_type" if fault["input"] is None and not location:
            return f"the file is empty; it needs the sections {', '.join(_required(Params))}"
        case "model_type":
            return f"must hold keys, not {shown} (a section with nothing to say is left out or written as {{}})"
        case "too_short":
            return "must not be empty"
        case "value_error":
            return str(fault["ctx"]["error"])
        case "literal_error":
            close = get_close_matches(str(fault["input"]), [part.strip("'") for part in _expected(fault)], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            return f"must be one of {', '.join(_expected(fault))}, not {shown}{hint}"
        case _:
            return f"{fault['msg'][0].lower()}{fault['msg'][1:]}, not {shown}"


def _expected(fault: ErrorDetails) -> list[str]:
    return str(fault.get("ctx", {}).get("expected", "")).replace(" or ", ", ").split(", ")


def _shorten(value: Any) -> str:
    """Show a value in a line, however large it is (aliases can make a small file a huge value)."""
    return SHORT.repr(dict(value) if isinstance(value, Mapping) else value)[:60]


def _location_in(data: Any, loc: Sequence[int | str]) -> list[int | str]:
    """Drop the parts of a pydantic location that are names of union members, not keys of the file."""
    location: list[int | str] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(data, Mapping) and (part in data or last):
            data = data.get(part)
        elif isinstance(data, Sequence) and not isinstance(data, str) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            continue
        location.append(part)
    return location


def _line_of(data: Any, location: Sequence[int | str]) -> int | None:
    """Line (from 1) of the deepest part of `location` that the file holds."""
    line = None
    for part in location:
        marks = getattr(data, "lc", None)
        try:
            if marks is not None:
                line = (marks.item(part) if isinstance(part, int) else marks.key(part))[0] + 1
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
    return line


def _required(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items() if field.is_required()]


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Names of the keys allowed at a place in the file."""
    current: Any = model
    in_mapping = False
    for part in location:
        if isinstance(part, int) or in_mapping:
            in_mapping = False
            continue  # the entries of a list or a mapping are all of one model
        if isinstance(current, type) and issubclass(current, BaseModel):
            names = {field.alias or name: field for name, field in current.model_fields.items()}
            if part not in names:
                return []
            in_mapping = get_origin(names[part].annotation) is dict
            current = _first_model(names[part].annotation)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [field.alias or name for name, field in current.model_fields.items()]
    return []


def _first_model(annotation: Any) -> Any:
    """The first model class inside `list[Model]`, `Model | None` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, dict, Union, UnionType):
        for argument in get_args(annotation):
            found = _first_model(argument)
            if found is not None:
                return found
    return None
