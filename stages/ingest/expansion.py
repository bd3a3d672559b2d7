"""Where ingest keeps its files, and how much one source may bring: what a header promises is not believed."""

from pathlib import Path
from typing import NamedTuple

from stages.common.errors import AttuneError


class SizeBudget:
    """The bytes that one source may still expand to: `megabytes` MiB in all (`ingest.max_expanded_mb`)."""

    def __init__(self, megabytes: int, origin: str) -> None:
        self.left, self.megabytes, self.origin = megabytes << 20, megabytes, origin

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


class Workspace(NamedTuple):
    """Where files go, and how large one source may be.

    Args:
        downloads: folder that keeps downloads from run to run.
        unpacked: folder for what comes out of archives while it is read.
        max_download_mb: largest download in MiB.
        max_expanded_mb: most MiB that a source may unpack to.
    """

    downloads: Path
    unpacked: Path
    max_download_mb: int = 2048
    max_expanded_mb: int = 8192

    def budget(self, origin: str) -> SizeBudget:
        """Return what a source may unpack to."""
        return SizeBudget(self.max_expanded_mb, origin)

    def check_download(self, size: int, origin: str) -> None:
        """Raise AttuneError if a download of `size` bytes is too large."""
        if size > self.max_download_mb << 20:
            raise AttuneError(
                f"{origin}: is larger than {self.max_download_mb:,} MiB",
                "if it is what you expect, raise ingest.max_download_mb",
            )
