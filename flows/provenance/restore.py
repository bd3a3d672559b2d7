"""A folder in which everything is as it was when a version was made: code, params, data, model, reports.

It is a Git worktree of the checkout, whose DVC cache and remotes it shares. The checkout itself is never touched.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.git import NETWORK_SECONDS, GitFailed, asked, git, object_at
from flows.provenance.versions import PATCH, Version
from flows.scheduled.worktree_files import check_out, fetch_all, furnish, run_dvc
from stages.common.errors import AttuneError
from stages.common.graph import Node, read_graph
from stages.common.params.loading import PARAMS_FILE
from stages.common.recorded import changes
from stages.common.stage import WORK
from stages.common.tracking.packaging import fetch_package
from stages.common.tracking.provenance import LOCK, MANIFEST
from stages.common.tracking.registry import REGISTRATION, STAMP, Registration
from stages.common.tracking.runs import model_digest

MODEL_OUT = "models/finetuned"
PARTS = {MODEL_OUT: "model", "models/exported": "exported", "models/serving": "serving"}  # in a Package

Log = Callable[[str], None]


@dataclass(frozen=True)
class Restored:
    """What came back.

    Args:
        folder: where.
        patched: whether uncommitted changes were applied.
        from_registry: parts of the model that neither DVC's cache nor its remote had.
        missing: outs that nobody has.
        differs: what else is not as it was, a line each.
    """

    folder: Path
    patched: bool
    from_registry: list[str]
    missing: list[str]
    differs: list[str]


def restore(home: Path, folder: Path, version: Version, kept: Path, commit: str, log: Log) -> Restored:
    """Make a folder in which a version is as it was made; if that fails, there is no folder.

    Args:
        home: a checkout of the project.
        folder: where; it must not exist, or be empty.
        version: what to restore.
        kept: folder of what was kept with it.
        commit: full hash of the one to start from.
        log: gets what a person should know.

    Raises:
        AttuneError: if the folder holds something, the commit cannot be had, the patch does not apply, or the model
            that came back is not the version's.
    """
    folder = check_folder(home, folder)
    _bring(home, commit)
    try:
        git(home, "worktree", "add", "--quiet", "--detach", "--force", "--force", "--", str(folder), commit)
        patched = commit == version.commit and (kept / PATCH).exists()
        if patched:
            _apply(folder, kept / PATCH, commit)
        for path in (LOCK, str(PARAMS_FILE), MANIFEST):
            if (kept / path).exists():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(kept / path, folder / path)
        if (kept / "reports").exists():
            shutil.copytree(kept / "reports", folder / "reports", dirs_exist_ok=True)
        graph = read_graph(folder)
        furnish(home, folder, log)
        check_out(folder, log)
        if _missing(folder, graph):
            fetch_all(folder, log)
            check_out(folder, log)
        taken = _take_parts(folder, graph, version, log)
        if (folder / REGISTRATION).exists() and (kept / REGISTRATION).exists():
            _stamp(folder, log)
        missing = _missing(folder, graph)
        differs = [
            f"{stage}: {change}"
            for stage, found in changes(list(graph), root=folder).items()
            for change in found
            if not missing or (change.what and change.what not in missing)  # the rest follows from what is missing
        ]
    except BaseException:
        with suppress(GitFailed):
            git(home, "worktree", "remove", "--force", "--force", str(folder))
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Restored(folder, patched, taken, missing, differs)


def check_folder(home: Path, folder: Path) -> Path:
    """Return the full path of a folder in which a worktree may be made.

    Raises:
        AttuneError: if it may not.
    """
    folder, home = Path(os.path.realpath(folder)), home.resolve()
    if asked(home, "rev-parse", "--show-toplevel") != str(home):
        raise AttuneError(f"{home} is not the top folder of a Git repository", "restore in a clone of the project")
    if folder.is_relative_to(home):
        raise AttuneError(f"{folder} lies in the checkout", "name a folder beside it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AttuneError(f"{folder} holds something already", "name a folder that does not exist yet")
    return folder


def _bring(home: Path, commit: str) -> None:
    """Have a commit in this clone, from origin if need be."""
    if object_at(home, f"{commit}^{{commit}}"):
        return
    try:
        git(home, "fetch", "--quiet", "--no-write-fetch-head", "--no-tags", "origin", commit, seconds=NETWORK_SECONDS)
    except GitFailed as error:
        what = f"neither this clone nor origin has the commit {commit}: {error.what}"
        raise AttuneError(what, f"fetch it from a clone that has it: git fetch OTHER-CLONE {commit}") from None


def _apply(folder: Path, patch: Path, commit: str) -> None:
    try:
        git(folder, "apply", "--whitespace=nowarn", "--", str(patch))
    except GitFailed as error:
        what = f"the uncommitted changes do not apply to {commit[:10]}: {error.what}"
        raise AttuneError(
            what, "they are in lineage/ among the artifacts of the version's run: apply them by hand"
        ) from None


def _take_parts(folder: Path, graph: Mapping[str, Node], version: Version, log: Log) -> list[str]:
    """Copy what DVC does not have of the model out of the registry; return these parts.

    Raises:
        AttuneError: if there is a model in the end, and it is not the version's.
    """
    model, outs = folder / MODEL_OUT, {out for node in graph.values() for out in node.outs}
    wanted = [path for path in PARTS if path in outs and not (folder / path).exists()]
    if model.is_dir() and model_digest(model) != version.model:
        wanted = [MODEL_OUT, *wanted]  # a file of DVC's cache is damaged
    taken = []
    with TemporaryDirectory(dir=folder / WORK) as beside:
        try:
            package = fetch_package(version.name, str(version.number), Path(beside)) if wanted else None
        except Exception as error:  # of whatever kind: what is there is there
            log(f"warning: the registry does not give {', '.join(wanted)}: {error}".partition("\n")[0])
            package = None
        for path in wanted if package else ():
            part = getattr(package, PARTS[path])
            shutil.rmtree(folder / path, ignore_errors=True)
            if part:
                shutil.copytree(part, folder / path)
                taken.append(path)
            else:  # the registry keeps no empty part
                (folder / path).mkdir(parents=True)
    if model.is_dir() and (found := model_digest(model)) != version.model:
        what = f"{MODEL_OUT} is not the version's model: its digest is {found}, the registry says {version.model}"
        raise AttuneError(what, "DVC's cache or the registry was changed: compare with a backup")
    _cache(folder, taken)
    return taken


def _cache(folder: Path, paths: list[str]) -> None:
    """Give outs that are as `dvc.lock` says to DVC's cache: else `dvc repro` would make them again."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo, repo.lock:
        for out in repo.index.outs:
            if out.def_path in paths and out.get_hash() == out.hash_info:
                out.commit()


def _stamp(folder: Path, log: Log) -> None:
    """Record that the version is registered: DVC writes that when a stage has ended, and `dvc.lock` was kept before."""
    try:
        Registration.read(folder / REGISTRATION).stamp(folder / STAMP)
    except AttuneError as error:  # of a version of another format
        log(f"warning: {error.what}")
    if problem := run_dvc(folder, "commit", "--force", "register"):
        log(f"warning: register is not recorded: {problem}")


def _missing(folder: Path, graph: Mapping[str, Node]) -> list[str]:
    """Return the outs that are not there; those of register are written at the end."""
    return [
        out for name, node in graph.items() for out in node.outs if name != "register" and not (folder / out).exists()
    ]
