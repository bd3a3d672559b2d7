"""A folder in which everything is as it was when a version was made: code, params, data, model, reports.

It is a Git worktree of the checkout, whose DVC cache and remotes it shares. The checkout itself is never touched.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.provenance.bytes_here import objects_with_other_bytes, other_bytes
from flows.provenance.commits import bring
from flows.provenance.kept import REGISTERS, check_outs, write_kept
from flows.provenance.place import begin, checked, command_path, complete, dvc_errors, remove, within
from flows.provenance.versions import MODEL_OUT, Making, Version
from flows.scheduled.worktree_files import check_out, default_remote, fetch_all, furnish, run_dvc
from stages.common.errors import AttuneError
from stages.common.graph import Node, read_graph
from stages.common.recorded import Change, changes
from stages.common.redact import redacted
from stages.common.serving.classifier import Package
from stages.common.shown import shown
from stages.common.stage import WORK
from stages.common.tracking.making import LOCK
from stages.common.tracking.registry import STAMP, Registration
from stages.common.tracking.runs import model_digest

EMPTY = "d751713988987e9331980363e24189ce.dir"  # DVC's hash of a folder without files
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
        from_registry: parts that neither DVC's cache nor its remote had, or not as recorded.
        spoiled: files of DVC's cache whose bytes are others than their names say.
    """

    folder: Path
    commit: str
    patched: bool
    missing: tuple[str, ...]
    differs: tuple[str, ...]
    from_registry: tuple[str, ...]
    spoiled: tuple[Path, ...] = ()


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
    folder = checked(home, folder)
    bring(home, commit)
    begin(home, folder, commit)
    try:
        with dvc_errors(folder):
            check_outs(folder)
            patched = making is not None and write_kept(folder, making)
            furnish(home, folder, log)
            _make_empty_folders(folder)
            _keep_in_cache(folder, _missing(folder))
            check_out(folder, log)
            graph = read_graph(folder)
    except BaseException:
        remove(home, folder)
        raise
    with dvc_errors(folder):
        found = _completed(folder, version, making, graph, fetch, log)
    complete(folder)
    return replace(found, commit=commit, patched=patched)


def _completed(
    folder: Path, version: Version, making: Making | None, graph: Mapping[str, Node], fetch: Fetch, log: Log
) -> Restored:
    """Bring what is missing or has other bytes than recorded, as far as it can be had, and look at what there is."""
    missing = _missing(folder)
    if missing and default_remote(folder):
        fetch_all(folder, log)
        check_out(folder, log)
        missing = _missing(folder)
    wrong = other_bytes(folder, graph)
    spoiled = objects_with_other_bytes(folder, wrong)
    wanted = [part for part in PARTS if part in missing or part in wrong]
    taken = _take_parts(folder, wanted, set(wrong), fetch, log) if wanted else []
    if taken:
        wrong = other_bytes(folder, graph)
        taken = [part for part in taken if part not in wrong]
    _check_model(folder, version)
    missing = [path for path in missing if path not in taken]
    stages = [name for name in graph if name != REGISTERS]
    registered = REGISTERS in graph and making is not None and (making.folder / REGISTERED).exists()
    if registered and not wrong and not any(changes(stages, root=folder).values()):
        with suppress(AttuneError):  # of a version of another format
            Registration.read(folder / REGISTERED).stamp(folder / STAMP)
        # DVC writes a stage's record when it has ended; this one was still at work when its version was made.
        problem = run_dvc(folder, "commit", "--force", REGISTERS)
        if problem:
            log(f"warning: {REGISTERS} is not recorded: {problem}")
    found = {
        stage: [one for one in reasons if one.what not in wrong]
        for stage, reasons in changes(list(graph), root=folder).items()
    }
    differs = (*(f"{path} {how}" for path, how in wrong.items()), *_differing(found, missing))
    return Restored(folder, "", False, tuple(missing), differs, tuple(taken), spoiled)


def _take_parts(folder: Path, wanted: Sequence[str], wrong: set[str], fetch: Fetch, log: Log) -> list[str]:
    """Copy parts of the model that DVC does not have out of the registry; return those that came, bytes as recorded.

    Of parts whose bytes in the cache are `wrong`, the cache gets no copy: DVC would put its own back.
    """
    places = {path: within(folder, path) for path in wanted}
    with TemporaryDirectory(dir=folder / WORK) as beside:
        try:
            package = fetch(Path(beside))
        except Exception as error:  # of whatever kind: what is there is there
            why = shown(redacted(str(error)).partition("\n")[0], 200) or type(error).__name__
            log(f"warning: the registry does not give {', '.join(wanted)}: {why}")
            return []
        given = [path for path in wanted if (part := getattr(package, PARTS[path])) is not None and part.is_dir()]
        for path in given:
            shutil.rmtree(places[path], ignore_errors=True)
            shutil.copytree(getattr(package, PARTS[path]), places[path])
    taken = _keep_in_cache(folder, [path for path in wanted if path not in wrong])
    taken += [path for path in given if path in wrong]  # whose bytes are looked at afterwards
    for path in wanted:
        if path not in taken and places[path].exists():
            log(f"warning: the registry's copy of {path} is not what {LOCK} says")
    return taken


def _make_empty_folders(folder: Path) -> None:
    """Make the outs that are folders without files, such as models/exported where nothing is exported."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        for out in repo.index.outs:
            if out.hash_info and out.hash_info.value == EMPTY:
                path = os.path.relpath(out.fs_path, os.path.realpath(folder))
                within(folder, path).mkdir(parents=True, exist_ok=True)


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
            f"make it again: cd {command_path(folder)} && make run",
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
