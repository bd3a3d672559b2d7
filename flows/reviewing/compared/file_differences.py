"""How two files or folders differ, in a line for people; by what they hold where that can be read, else by bytes.

Nothing is unpickled, and a file that is broken is told of as such.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import polars as pl

from flows.reviewing.compared.table_differences import table_difference
from flows.reviewing.compared.tables import read_parquet
from flows.reviewing.compared.tensor_differences import open_tensors, tensor_difference
from flows.reviewing.compared.value_change import first_other, value_change
from stages.common.shown import shown

KEYS = 3  # changed keys told of
NAME = 80  # characters shown of a file's name or a key
CHUNK = 2**20


@dataclass(frozen=True)
class Kind:
    """A format whose content can be compared.

    Args:
        name: for people.
        read: a file.
        compare: what was read of two; returns nothing if it is the same.
    """

    name: str
    read: Callable[[Path], Any]
    compare: Callable[[Any, Any], str]


def difference(old: Path, new: Path) -> str:
    """Return how two files or folders differ; nothing if and only if their bytes are the same."""
    for path, which in ((old, "old"), (new, "new")):
        if not path.exists():
            return f"the {which} one is not there" if old.exists() or new.exists() else ""
    if old.is_dir() and new.is_dir():
        return _folders(old, new)
    if old.is_dir() or new.is_dir():
        return f"a {_what(old)} → a {_what(new)}"
    try:
        bytes_apart = _bytes(old, new)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not bytes_apart:
        return ""
    kind = KINDS.get(new.suffix.lower())
    return _contents(old, new, kind, bytes_apart) if kind else bytes_apart


def json_difference(old: Any, new: Any) -> str:
    """Return the first keys of two JSON values with other values; nothing if there are none."""
    before, after = dict(flat(old)), dict(flat(new))
    told = []
    for key in dict.fromkeys([*before, *after]):
        name = shown(".".join(map(str, key)), NAME) or "the whole"
        if key not in after:
            told.append(f"{name} is gone")
        elif key not in before:
            told.append(f"{name} is new")
        elif before[key] != after[key]:
            told.append(f"{name} {value_change(json.loads(before[key]), json.loads(after[key]))}")
    more = len(told) - KEYS
    return ", ".join(told[:KEYS]) + (f" and {more} more" if more > 0 else "")


def _contents(old: Path, new: Path, kind: Kind, bytes_apart: str) -> str:
    contents, broken = [], []
    for path, which in ((old, "old"), (new, "new")):
        try:
            contents.append(kind.read(path))
        except (Exception, pl.exceptions.PanicException):  # of a file that was tampered with, anything
            broken.append(which)
    if broken:
        told = f"the {broken[0]} file is no" if len(broken) == 1 else "both are no"
        return f"{told} readable {kind.name}; {bytes_apart}"
    try:
        told = kind.compare(*contents)
    except (Exception, pl.exceptions.PanicException):
        told = ""
        bytes_apart += "; what is in them cannot be compared"
    else:
        bytes_apart = f"the same content in other bytes; {bytes_apart}"
    return told or bytes_apart


def _folders(old: Path, new: Path) -> str:
    before, after = _files(old), _files(new)
    told = []
    for names, what in ((sorted(before.keys() - after.keys()), "gone"), (sorted(after.keys() - before.keys()), "new")):
        if names:
            files = "1 file" if len(names) == 1 else f"{len(names)} files"
            told.append(f"{files} {what} ({shown(names[0], NAME)})")
    both = sorted(before.keys() & after.keys())
    apart = {name: how for name in both if (how := difference(before[name], after[name]))}
    if apart:
        name, how = next(iter(apart.items()))
        verb = "differs" if len(apart) == 1 else "differ"
        told.append(f"{len(apart)} of {len(both)} files {verb}: {shown(name, NAME)}: {how}")
    return ", ".join(told)


def _files(folder: Path) -> Mapping[str, Path]:
    """Return what lies in a folder by its path there; folders count by their files."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}


def _what(path: Path) -> str:
    return "folder" if path.is_dir() else "file"


def flat(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield (keys that lead to it, plain value as JSON) of a JSON value: 1, 1.0 and true are three values there."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, (*place, key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from flat(inner, (*place, number))
    else:
        yield place, json.dumps(value)


def _lines(old: str, new: str) -> str:
    before, after = old.split("\n"), new.split("\n")
    first = next((at for at, (was, now) in enumerate(zip_longest(before, after), 1) if was != now), 0)
    lines = f"{len(before):,} lines" if len(before) == len(after) else f"{len(before):,} → {len(after):,} lines"
    return f"{lines}, the first other one is line {first:,}" if first else ""


def _bytes(old: Path, new: Path) -> str:
    """Return sizes and the place of the first byte that differs; nothing if none does."""
    sizes = old.stat().st_size, new.stat().st_size
    with old.open("rb") as before, new.open("rb") as after:
        place = 0
        while (was := before.read(CHUNK)) == (now := after.read(CHUNK)):
            if not was:
                return ""
            place += len(was)
    place += first_other(was, now)
    told = f"{sizes[0]:,} bytes in both" if sizes[0] == sizes[1] else f"{sizes[0]:,} → {sizes[1]:,} bytes"
    return f"{told}, the first other one is byte {place + 1:,}"


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def _read_text(path: Path) -> str:
    return path.read_bytes().decode("utf-8")


def _read_csv(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema=False)  # 0.50 and 0.5 are two values


TEXT = Kind("text", _read_text, _lines)
KINDS: dict[str, Kind] = {
    ".parquet": Kind("Parquet", read_parquet, table_difference),
    ".csv": Kind("CSV", _read_csv, table_difference),
    ".json": Kind("JSON", read_json, json_difference),
    ".safetensors": Kind("safetensors", open_tensors, tensor_difference),
    **dict.fromkeys((".html", ".md", ".txt", ".yaml", ".yml"), TEXT),
}
