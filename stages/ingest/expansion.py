"""Decompress within a size budget: what a header promises is not believed."""

import bz2
import errno
import gzip
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from stages.common.errors import AttuneError

BLOCK = 1 << 20
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
DAMAGE = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)  # what the three raise over broken bytes


class Limits(NamedTuple):
    """How large one source may be, in MiB."""

    max_download_mb: int = 2048
    max_expanded_mb: int = 8192


def check_download_size(size: int, max_mb: int) -> None:
    """Raise AttuneError if a download of `size` bytes is too large."""
    if size > max_mb << 20:
        raise AttuneError(f"is larger than {max_mb:,} MiB", "if it is what you expect, raise ingest.max_download_mb")


def of_the_disk(error: Exception) -> bool:
    """Tell a full or locked disk from damaged data, for which the libraries raise OSError too."""
    of_the_data = (None, errno.EINVAL)  # EINVAL: an offset below zero
    return isinstance(error, OSError) and error.errno not in of_the_data


class SizeBudget:
    """The bytes that one source may still expand to.

    Args:
        megabytes: how many MiB there are in all (`ingest.max_expanded_mb`).
        origin: the source, for the message.
    """

    def __init__(self, megabytes: int, origin: str) -> None:
        self.left = megabytes << 20
        self.megabytes = megabytes
        self.origin = origin

    def spend(self, count: int) -> None:
        """Take `count` bytes off the budget.

        Raises:
            AttuneError: if they are more than what was left.
        """
        self.left -= count
        if self.left < 0:
            raise AttuneError(
                f"{self.origin}: unpacks to more than {self.megabytes:,} MiB",
                "if it is what you expect, raise ingest.max_expanded_mb; a small file that grows so may be a trap",
            )

    def copy(self, stream: IO[bytes], out: IO[bytes]) -> None:
        """Copy a stream to its end."""
        while block := stream.read(BLOCK):
            self.spend(len(block))
            out.write(block)
