"""File locks: held by one process at a time, and released however that process ends."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a file, which is created; yield whether it was free."""
    with path.open("w") as lock:
        yield _acquired(lock, path, fcntl.LOCK_NB)


@contextmanager
def in_turn(path: Path, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of a file, which is created with its folder; wait until it is free.

    `tell` is called once if another process holds it.
    """
    mode = fcntl.LOCK_NB
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            if _acquired(lock, path, mode):
                yield
                return
        if mode:
            tell()
        mode = 0  # from now on, wait


def _acquired(lock: TextIO, path: Path, mode: int) -> bool:
    """Lock an open file. The holder may remove it: a lock on a file that is no longer at its path does not count."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | mode)
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
