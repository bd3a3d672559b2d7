"""File locks: held by one process at a time, and released however that process ends."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a file, which is created; yield whether it was free.

    The holder may remove the file: a lock on a removed file does not count.
    """
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = _exists(path, lock)
        except BlockingIOError:
            free = False
        yield free


@contextmanager
def in_turn(path: Path, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of a file, which is created with its folder; wait until it is free.

    Args:
        path: the file.
        tell: called once if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path) as free:
        if free:
            yield
            return
    tell()
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _exists(path, lock):  # else whoever held it has removed it
                yield
                return


def _exists(path: Path, lock: TextIO) -> bool:
    """Return whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
