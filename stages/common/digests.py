"""SHA-256 of files, folders and plain values, and the order that seeded hashes of names give."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_path(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's relative names and bytes (`__pycache__` left out)."""
    if not path.is_dir():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return sha256_value([(file.relative_to(path).as_posix(), sha256_file(file)) for file in files])


def sha256_value(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def seeded_hash(seed: str | int, name: str) -> int:
    """Return 64 bits of a hash of seed and name. Rows sampled in its order hardly change when one more joins them.

    It depends on no other name, no machine and no version: SHA-256, the first 8 bytes, big end first.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")


def hash_order(column: str, seed: str) -> "pl.Expr":
    """Return the seeded hash of each name in a column, uint64: the first n rows in this order are a sample."""
    import polars as pl

    return pl.col(column).map_elements(lambda name: seeded_hash(seed, name), return_dtype=pl.UInt64)
