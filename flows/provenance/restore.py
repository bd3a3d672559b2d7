"""A folder in which everything is as it was when a version was made: code, params, data, model, reports.

It is a Git worktree of the checkout, whose DVC cache and remotes it shares. The checkout itself is never touched.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.provenance.commits import bring
from flows.provenance.versions import MODEL_OUT, Making, Version
from flows.scheduled.repository import GitFailed, asked, git
from flows.scheduled.worktree_files import check_out, default_remote, fetch_all, furnish, run_dvc
from stages.common.errors import AttuneError
from stages.common.graph import read_graph
from stages.common.params.loading import PARAMS_FILE
from stages.common.recorded import Change, changes
from stages.common.serving.classifier import Package
from stages.common.shown import shown
from stages.common.stage import WORK
from stages.common.tracking.checkout import SOURCES
from stages.common.tracking.making import LOCK
from stages.common.tracking.runs import model_digest

REGISTERS = "register"
REGISTERED = "reports/registration.json"
PARTS = {"models/finetuned": "model", "models/exported": "exported", "models/serving": "serving"}  # in a Package

Log = Callable[[str], None]
Fetch = Callable[[Path], Package]


@dataclass(frozen=True)
class Restored:
    """What came back.

    Args:
        folder: where.
        commit: that its files are of.
        patched: whether uncommitted changes were applied.
        missing: outs that neither DVC's cache, nor a remote, nor the registry has.
        differs: what else is not as it was, a line each; neither: `dvc status` has nothing to say.
        from_registry: parts that neither DVC's cache nor its remote had.
    """

    folder: Path
    commit: str
    patched: bool
    missing: tuple[str, ...]
    differs: tuple[str, ...]
    from_registry: tuple[str, ...]


def restore(
    home: Path, folder: Path, version: Version, making: Making | None, commit: str, fetch: Fetch, log: Log
) -> Restored:
    """Make a folder in which a version is as it was made.

    Args:
        home: a checkout of the project.
        folder: where; it must not exist, or be empty.
        version: what to restore.
        making: what it keeps; None: what the commit has must do.
        commit: full hash of the one to start from.
        fetch: copies the version's parts out of the registry into a folder.
        log: gets what a person should know.

    Raises:
        AttuneError: if the folder holds something, the commit cannot be had, the patch does not apply, or the model
            that came back is not the version's.
    """
    folder = _checked(home, folder)
    bring(home, commit)
    git(home, "worktree", "add", "--quiet", "--detach", "--force", "--force", "--", str(folder), commit)
    try:
        patched = making is not None and _write(folder, making)
        furnish(home, folder, log)
        _keep_in_cache(folder, _missing(folder))
        check_out(folder, log)
        graph = read_graph(folder)
    except BaseException:
        _remove(home, folder)
        raise
    missing = _missing(folder)
    if missing and default_remote(folder):
        fetch_all(folder, log)
        check_out(folder, log)
        missing = _missing(folder)
    wanted = [part for part in PARTS if part in missing]
    taken = _take_parts(folder, wanted, fetch, log) if wanted else []
    _check_model(folder, version)
    missing = [path for path in missing if path not in taken]
    stages = [name for name in graph if name != REGISTERS]
    registered = REGISTERS in graph and making is not None and (making.folder / REGISTERED).exists()
    if registered and not any(changes(stages, root=folder).values()):
        # DVC writes a stage's record when it has ended; this one was still at work when its version was made.
        problem = run_dvc(folder, "commit", "--force", REGISTERS)
        if problem:
            log(f"warning: {REGISTERS} is not recorded: {problem}")
    differs = _differing(changes(list(graph), root=folder), missing)
    return Restored(folder, commit, patched, tuple(missing), differs, tuple(taken))


def _checked(home: Path, folder: Path) -> Path:
    """Return the folder's full path, if a worktree may be made there.

    Raises:
        AttuneError: if not.
    """
    folder, home = Path(os.path.normpath(folder.absolute())), home.resolve()
    if asked(home, "rev-parse", "--show-toplevel") != str(home):
        raise AttuneError(f"{home} is no checkout of the project", "go to its top folder")
    said = shown(str(folder), 200)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise AttuneError(f"{said} is no folder", "name one that does not exist yet")
    if folder.exists() and any(folder.iterdir()):
        raise AttuneError(
            f"{said} holds something already, perhaps of an attempt that was cut short",
            f"name another folder; or if it is nothing you need: git worktree remove --force --force {said}",
        )
    place = folder.resolve()
    if home in (place, *place.parents) and home / WORK not in place.parents:
        raise AttuneError(f"{said} lies in the checkout, which is to stay as it is", "name a folder beside it")
    return place


def _write(folder: Path, making: Making) -> bool:
    """Bring a worktree from its commit to where the version was made; return whether a patch was applied."""
    if making.patch:
        named = git(folder, "apply", "--numstat", "-z", "--", str(making.patch)).split("\0")
        paths = [line.split("\t", 2)[-1] for line in named if line]
        if strange := [path for path in paths if not {*Path(path).parts[:1]} & {*SOURCES}]:
            raise AttuneError(
                f"the patch would change {shown(strange[0], 120)}, which is no code of a stage and no configuration",
                "look at it among the run's artifacts: somebody else may have put it there",
            )
        git(folder, "apply", "--whitespace=nowarn", "--", str(making.patch))
    (folder / PARAMS_FILE).write_text(making.params, encoding="utf-8")
    shutil.copyfile(making.folder / LOCK, folder / LOCK)
    locked = {out["path"]: out.get("md5") for stage in making.lock.values() for out in stage.get("outs", [])}
    own = {out for name, node in read_graph(folder).items() if name == REGISTERS for out in node.outs}
    for file in sorted(making.folder.rglob("*")):
        path = file.relative_to(making.folder).as_posix()
        if file.is_file() and (path in own or _md5(file) == locked.get(path)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / path)
    return making.patch is not None


def _take_parts(folder: Path, wanted: Sequence[str], fetch: Fetch, log: Log) -> list[str]:
    """Copy parts of the model out of the registry that DVC does not have; return those that came, bytes as recorded."""
    with TemporaryDirectory(dir=folder / WORK) as beside:
        try:
            package = fetch(Path(beside))
        except Exception as error:  # of whatever kind: what is there is there
            why = shown(str(error).partition("\n")[0], 200) or type(error).__name__
            log(f"warning: the registry does not give {', '.join(wanted)}: {why}")
            return []
        for path in wanted:
            source: Path | None = getattr(package, PARTS[path])
            if source is not None and source.is_dir():
                shutil.rmtree(folder / path, ignore_errors=True)
                shutil.copytree(source, folder / path)
    taken = _keep_in_cache(folder, wanted)
    for path in wanted:
        if path not in taken and (folder / path).exists():
            log(f"warning: the registry's copy of {path} is not what {LOCK} says")
    return taken


def _keep_in_cache(folder: Path, paths: Sequence[str]) -> list[str]:
    """Give outs whose bytes are those that `dvc.lock` names to DVC's cache; return them."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo, repo.lock:
        outs = [out for out in repo.index.outs if out.def_path in paths and out.exists]
        kept = [out for out in outs if out.hash_info and out.get_hash() == out.hash_info]
        for out in kept:
            out.commit()
        return [str(out.def_path) for out in kept]


def _check_model(folder: Path, version: Version) -> None:
    """Hold the model against the digest that the registry knows it by.

    Raises:
        AttuneError: if it is not there or another one.
    """
    model = folder / MODEL_OUT
    if not model.is_dir():
        raise AttuneError(
            f"{MODEL_OUT} came back from nowhere: neither DVC's cache, nor a remote, nor the registry has it",
            f"make it again: cd {shown(str(folder), 200)} && make run",
        )
    if not version.model:
        raise AttuneError("the version has no digest of its model, so nothing can be checked", "see its tags in MLflow")
    if (found := model_digest(model)) != version.model:
        raise AttuneError(
            f"{MODEL_OUT} in {shown(str(folder), 200)} is not the version's model: its digest is {found[:16]}…, "
            f"the registry says {shown(version.model, 16)}",
            "somebody changed the cache, the registry or the version's tags; `dvc doctor`, and compare with a backup",
        )


def _differing(found: Mapping[str, Sequence[Change]], missing: Sequence[str]) -> tuple[str, ...]:
    """Return what is not as it was, in lines; what follows from missing files alone is left out."""
    if missing:
        gone = set(missing)
        found = {
            stage: [one for one in reasons if one.what and one.what not in gone] for stage, reasons in found.items()
        }
    return tuple(f"{stage}: {one}" for stage, reasons in found.items() for one in reasons)


def _missing(folder: Path) -> list[str]:
    """Return the outs that are not there, or not as `dvc.lock` says; register's are none: it comes last."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        stages = [stage for stage in repo.index.stages if getattr(stage, "name", "") not in ("", REGISTERS)]
        return [str(out.def_path) for stage in stages for out in stage.outs if out.status()]


def _remove(home: Path, folder: Path) -> None:
    with suppress(GitFailed):
        git(home, "worktree", "remove", "--force", "--force", str(folder))
    shutil.rmtree(folder, ignore_errors=True)


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
