"""A folder in which everything is as it was when a version was made: code, params, data, model, reports.

It is a Git worktree of the checkout, whose DVC cache and remotes it shares. The checkout itself is never touched.
"""

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.model_versions.versions import PATCH, Version
from flows.repository.worktree_files import Log, check_out, furnish, run_dvc
from stages.common.digests import sha256_path
from stages.common.errors import AttuneError
from stages.common.git import NETWORK_SECONDS, GitFailed, git, object_at
from stages.common.pipeline.dvc_status import changes
from stages.common.pipeline.graph import Node, read_graph
from stages.common.pipeline.stage import WORK
from stages.tracking.package import fetch_package
from stages.tracking.registry import REGISTRATION, STAMP, Registration

FETCH = ("fetch", "--quiet", "--no-write-fetch-head", "--no-tags")
MODEL_OUT = "models/finetuned"
PARTS = {MODEL_OUT: "model", "models/exported": "exported", "models/serving": "serving"}  # in a Package


def restore(home: Path, folder: Path, version: Version, kept: Path, commit: str, log: Log) -> bool:
    """Make a folder in which a version is as it was made, starting from a commit; return whether its model is there.

    `folder` is what `check_folder` has returned, `kept` what `fetch_kept` has brought.

    Raises:
        AttuneError: if the commit cannot be had, the patch does not apply, or the model that came back is not the
            version's; then there is no folder.
    """
    if not object_at(home, f"{commit}^{{commit}}"):
        fix = f"fetch it from a clone that has it: git fetch OTHER-CLONE {commit}"
        with _explained(f"neither this clone nor origin has the commit {commit}", fix):
            git(home, *FETCH, "origin", commit, seconds=NETWORK_SECONDS)
    git(home, "worktree", "add", "--quiet", "--detach", "--force", "--", str(folder), commit)
    try:  # only what this has made is removed after an error
        log(f"{shlex.quote(str(folder))}: commit {commit[:10]}")
        if (patch := kept.with_name(PATCH)).exists():
            fix = "they are in lineage/ among the artifacts of the version's run: apply them by hand"
            with _explained(f"the uncommitted changes do not apply to {commit[:10]}", fix):
                git(folder, "apply", "--whitespace=nowarn", "--", str(patch))
            log("  with the changes that were not committed")
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        graph = read_graph(folder)
        furnish(home, folder, log)
        check_out(folder, log)
        if _missing(folder, graph):
            check_out(folder, log, fetch=True)
        stages = _take_parts(folder, graph, version, log)
        if (kept / REGISTRATION).exists():
            with suppress(AttuneError):  # of a version of another format
                Registration.read(folder / REGISTRATION).stamp(folder / STAMP)
                stages.append("register")  # its end was recorded after `dvc.lock` was kept
        if stages and (problem := run_dvc(folder, "commit", "--force", *stages)):
            log(f"warning: {', '.join(stages)} are not recorded: {problem}")
        stale = changes(list(graph), root=folder)
    except BaseException:
        with suppress(GitFailed):
            git(home, "worktree", "remove", "--force", "--force", str(folder))
        shutil.rmtree(folder, ignore_errors=True)
        raise
    differs = [f"  not as it was: {stage}: {change}" for stage, reasons in stale.items() for change in reasons]
    missing = _missing(folder, graph)  # from which most of what differs follows
    lines = [f"  missing: {path}, which neither DVC's cache, nor a remote, nor the registry has" for path in missing]
    for line in lines or differs or ["  all is as dvc.lock says: no stage would have to run there"]:
        log(line)
    name = shlex.quote(str(folder))
    log(f"to make what is missing or differs: cd {name} && make run; to remove all: git worktree remove --force {name}")
    return MODEL_OUT not in missing


def check_folder(home: Path, folder: Path) -> Path:
    """Return the full path of a folder in which a worktree may be made; an AttuneError if it may not."""
    folder, home = Path(os.path.realpath(folder)), home.resolve()
    if git(home, "rev-parse", "--show-toplevel") != str(home):
        raise AttuneError(f"{home} is not the top folder of a Git repository", "restore in a clone of the project")
    if folder.is_relative_to(home):
        raise AttuneError(f"{folder} lies in the checkout", "name a folder beside it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AttuneError(f"{folder} holds something already", "name a folder that does not exist yet")
    return folder


@contextmanager
def _explained(what: str, fix: str) -> Iterator[None]:
    try:
        yield
    except GitFailed as error:
        raise AttuneError(f"{what}: {error.what}", fix) from None


def _take_parts(folder: Path, graph: Mapping[str, Node], version: Version, log: Log) -> list[str]:
    """Copy what DVC does not have of the model out of the registry; return the stages whose outs that are.

    Raises:
        AttuneError: if there is a model in the end, and it is not the version's.
    """
    model, outs = folder / MODEL_OUT, {out for node in graph.values() for out in node.outs}
    wanted = [path for path in PARTS if path in outs and not (folder / path).exists()]
    if model.is_dir() and sha256_path(model) != version.model:
        wanted = [MODEL_OUT, *wanted]  # a file of DVC's cache is damaged
    with TemporaryDirectory(dir=folder / WORK) as beside:
        try:
            package = fetch_package(version.name, str(version.number), Path(beside)) if wanted else None
        except Exception as error:  # of whatever kind: what is there is there
            log(f"warning: the registry does not give {', '.join(wanted)}: {error}".partition("\n")[0])
            package = None
        if package:
            log(f"  from the registry, since DVC does not have it: {', '.join(wanted)}")
            for path in wanted:
                shutil.rmtree(folder / path, ignore_errors=True)
                (folder / path).mkdir(parents=True)
                if part := getattr(package, PARTS[path]):  # the registry keeps no empty part
                    shutil.copytree(part, folder / path, dirs_exist_ok=True)
    if model.is_dir() and (digest := sha256_path(model)) != version.model:
        what = f"{MODEL_OUT} is not the version's model: its digest is {digest}, the registry says {version.model}"
        raise AttuneError(what, "DVC's cache or the registry was changed: compare with a backup")
    return [name for name, node in graph.items() if package and set(wanted) & set(node.outs)]


def _missing(folder: Path, graph: Mapping[str, Node]) -> list[str]:
    """Return the outs that are not there; those of register are written at the end."""
    stages = [node for name, node in graph.items() if name != "register"]
    return [out for node in stages for out in node.outs if not (folder / out).exists()]
