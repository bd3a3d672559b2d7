"""SHA-256 of files, folders and plain values: the names by which the project finds things again."""

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_path(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's relative names and bytes (`__pycache__` left out).

    Raises:
        FileNotFoundError: if there is neither.
    """
    if not path.is_dir():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return sha256_value([(file.relative_to(path).as_posix(), sha256_file(file)) for file in files])


def sha256_value(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
