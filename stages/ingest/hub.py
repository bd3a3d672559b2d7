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


def hub_file(repository: str, revision: str, name: str, downloads: Path, max_mb: int) -> tuple[Path, str]:
    """Return a file of a data set's repository, and the commit it is of.

    Raises:
        AttuneError: if it cannot be had or is larger than `max_mb` MiB.
    """
    with _told(f"{repository}@{revision}"):
        from huggingface_hub import hf_hub_download

        what: dict[str, Any] = {"repo_type": "dataset", "revision": revision, "cache_dir": downloads / "hub"}
        plan = hf_hub_download(repository, name, dry_run=True, **what)
        _check_size([plan], max_mb)
        return Path(hf_hub_download(repository, name, **what)), plan.commit_hash


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
    with _told(f"{repository}@{revision}"):
        from huggingface_hub import snapshot_download

        folder = folder.strip("/")
        inside = escape(f"{folder}/") if folder else ""
        what: dict[str, Any] = {
            "revision": revision,
            "cache_dir": downloads / "hub",
            "allow_patterns": [f"{inside}{pattern}" for pattern in allowed],
            "ignore_patterns": [f"{inside}*/*"],  # here * does not stop at a /
        }
        plans = snapshot_download(repository, dry_run=True, **what)
        if not plans:
            raise AttuneError("holds none of the files that are needed", "check member, and that it is a model")
        _check_size(plans, max_mb)
        snapshot = Path(snapshot_download(repository, **what))
        return snapshot / folder, snapshot.name


def _check_size(plans: list[Any], max_mb: int) -> None:
    if sum(plan.file_size or 0 for plan in plans) > max_mb << 20:
        raise AttuneError(f"is larger than {max_mb:,} MiB", "if it is what you expect, raise ingest.max_download_mb")


@contextmanager
def _told(origin: str) -> Iterator[None]:
    """Turn the client's errors into messages without addresses, which may be signed."""
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except AttuneError as error:
        raise AttuneError(f"{origin}: {error.what}", error.fix) from None
    except errors.GatedRepoError:
        raise AttuneError(
            f"{origin}: its owner asks for consent", "agree on its page, and put your token into HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise AttuneError(
            f"{origin}: no such repository, or a private one",
            "check the name; put a token into HF_TOKEN if it is private",
        ) from None
    except errors.RevisionNotFoundError:
        raise AttuneError(f"{origin}: no such revision", "name a commit or tag of the repository") from None
    except errors.RemoteEntryNotFoundError:
        raise AttuneError(f"{origin}: no such file there", "look at the repository's page under Files") from None
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, errors.DryRunError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EROFS):
            raise  # our own disk
        line = re.sub(r"[a-z]+://\S+", "(address)", (str(error).splitlines() or [""])[0])[:200]
        raise AttuneError(
            f"{origin}: the hub could not be read ({type(error).__name__}: {line})",
            "check the network, and HF_ENDPOINT and HF_HUB_OFFLINE if they are set",
            passing=True,
        ) from None
