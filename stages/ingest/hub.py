"""Files of the Hugging Face Hub at a fixed revision: fetched as files, never loaded, no code of theirs run."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from glob import escape
from pathlib import Path

from stages.common.errors import AttuneError
from stages.common.params import FolderSource, TextSource
from stages.ingest.download import reason
from stages.ingest.expansion import Workspace


def hub_file(source: TextSource, workspace: Workspace) -> tuple[Path, str]:
    """Return a file of a data set's repository, and the commit it is of.

    Raises:
        AttuneError: if it cannot be had or is too large.
    """
    from huggingface_hub import hf_hub_download

    cache = workspace.downloads / "hub"
    fetch = partial(hf_hub_download, repo_type="dataset", revision=source.revision, cache_dir=cache)
    with _explained(source):
        plan = fetch(source.hub, source.stored, dry_run=True)
        workspace.check_download(plan.file_size or 0, source.origin)
        return Path(fetch(source.hub, source.stored)), plan.commit_hash


def hub_folder(source: FolderSource, allowed: Sequence[str], workspace: Workspace) -> tuple[Path, str]:
    """Return a folder with those of its own files that match an allowed pattern, and the commit they are of.

    Raises:
        AttuneError: if they cannot be had or are too large.
    """
    from huggingface_hub import snapshot_download

    folder = (source.member or "").strip("/")
    inside = escape(f"{folder}/") if folder else ""
    fetch = partial(
        snapshot_download,
        revision=source.revision,
        cache_dir=workspace.downloads / "hub",
        allow_patterns=[f"{inside}{pattern}" for pattern in allowed],
        ignore_patterns=[f"{inside}*/*"],  # here * does not stop at a /
    )
    with _explained(source):
        plans = fetch(source.hub, dry_run=True)
        if not plans:
            raise AttuneError(
                f"{source.origin}: holds none of the files that are needed", "check member, and that it is a model"
            )
        workspace.check_download(sum(plan.file_size or 0 for plan in plans), source.origin)
        snapshot = Path(fetch(source.hub))
    return snapshot / folder, snapshot.name


@contextmanager
def _explained(source: TextSource | FolderSource) -> Iterator[None]:
    """Turn the client's errors into messages without addresses, which may be signed."""
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, errors.DryRunError, OSError, ValueError) as error:
        answer = getattr(error, "response", None)
        raise AttuneError(
            f"{source.origin}: the hub could not be read ({reason(error)})",
            "check hub, revision, member and the network; a private repository needs your token in HF_TOKEN, and one "
            "that is gated your consent on its page",
            passing=answer is None or answer.status_code >= 500,
        ) from None
