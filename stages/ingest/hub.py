"""Files of the Hugging Face Hub at a fixed revision: fetched as files, never loaded, no code of theirs run."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC, EROFS
from glob import escape
from pathlib import Path
from typing import Any

from stages.common.errors import AttuneError
from stages.ingest.expansion import check_download_size

# Errors of the client by name: what is said of each, and what to do.
ANSWERS = {
    "GatedRepoError": ("its owner asks for consent", "agree on its page, and put your token into HF_TOKEN"),
    "RepositoryNotFoundError": (
        "no such repository, or a private one",
        "check the name; put a token into HF_TOKEN if it is private",
    ),
    "RevisionNotFoundError": ("no such revision", "name a commit or tag of the repository"),
    "RemoteEntryNotFoundError": ("no such file there", "look at the repository's page under Files"),
}


def hub_file(repository: str, revision: str, name: str, downloads: Path, max_mb: int) -> tuple[Path, str]:
    """Return a file of a data set's repository, and the commit it is of.

    Raises:
        AttuneError: if it cannot be had or is larger than `max_mb` MiB.
    """
    from huggingface_hub import hf_hub_download

    options: dict[str, Any] = {"repo_type": "dataset", "revision": revision, "cache_dir": downloads / "hub"}
    with _explained(f"{repository}@{revision}"):
        plan = hf_hub_download(repository, name, dry_run=True, **options)
        check_download_size(plan.file_size or 0, max_mb)
        return Path(hf_hub_download(repository, name, **options)), plan.commit_hash


def hub_folder(
    repository: str, revision: str, folder: str, allowed: Sequence[str], downloads: Path, max_mb: int
) -> tuple[Path, str]:
    """Return a folder with those files of a model's repository that are allowed, and the commit they are of.

    Args:
        repository: owner/name.
        revision: a commit or tag.
        folder: the folder in it, "" for the top.
        allowed: patterns of the names of its own files (not of those of folders in it).
        downloads: folder that keeps downloads from run to run.
        max_mb: largest size of all of them in MiB.

    Raises:
        AttuneError: if they cannot be had or are larger than `max_mb` MiB.
    """
    from huggingface_hub import snapshot_download

    folder = folder.strip("/")
    inside = escape(f"{folder}/") if folder else ""
    options: dict[str, Any] = {
        "revision": revision,
        "cache_dir": downloads / "hub",
        "allow_patterns": [f"{inside}{pattern}" for pattern in allowed],
        "ignore_patterns": [f"{inside}*/*"],  # here * does not stop at a /
    }
    with _explained(f"{repository}@{revision}"):
        plans = snapshot_download(repository, dry_run=True, **options)
        if not plans:
            raise AttuneError("holds none of the files that are needed", "check member, and that it is a model")
        check_download_size(sum(plan.file_size or 0 for plan in plans), max_mb)
        snapshot = Path(snapshot_download(repository, **options))
    return snapshot / folder, snapshot.name


@contextmanager
def _explained(origin: str) -> Iterator[None]:
    """Turn the client's errors into messages without addresses, which may be signed."""
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except AttuneError as error:
        raise AttuneError(f"{origin}: {error.what}", error.fix) from None
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, errors.DryRunError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EROFS):
            raise  # our own disk
        if answer := ANSWERS.get(type(error).__name__):
            raise AttuneError(f"{origin}: {answer[0]}", answer[1]) from None
        line = re.sub(r"[a-z]+://\S+", "(address)", (str(error).splitlines() or [""])[0])[:200]
        raise AttuneError(
            f"{origin}: the hub could not be read ({type(error).__name__}: {line})",
            "check the network, and HF_ENDPOINT and HF_HUB_OFFLINE if they are set",
            passing=True,
        ) from None
