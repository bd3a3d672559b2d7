"""What a version keeps, brought into the folder that it is restored into. A registry may hand out anything."""

import hashlib
import os
import shutil
from pathlib import Path

from flows.git import git
from flows.provenance.place import within
from flows.provenance.versions import Making
from stages.common.errors import AttuneError
from stages.common.graph import read_graph
from stages.common.params.loading import PARAMS_FILE
from stages.common.shown import shown
from stages.common.tracking.checkout import SOURCES
from stages.common.tracking.making import LOCK

REGISTERS = "register"
LOOK = "look at it among the run's artifacts: somebody else may have put it there"


def write_kept(folder: Path, making: Making) -> bool:
    """Bring a worktree from its commit to where the version was made; return whether a patch was applied.

    Raises:
        AttuneError: if that would reach beyond code, configuration and outs of the stages in this folder.
    """
    if making.patch:
        _apply(folder, making.patch)
    within(folder, str(PARAMS_FILE)).write_text(making.params, encoding="utf-8")
    shutil.copyfile(making.folder / LOCK, within(folder, LOCK))
    check_outs(folder)
    locked = {out["path"]: out.get("md5") for stage in making.lock.values() for out in stage.get("outs", [])}
    graph = read_graph(folder)
    outs = {out for node in graph.values() for out in node.outs}
    own = {*(graph[REGISTERS].outs if REGISTERS in graph else ())}
    for file in sorted(making.folder.rglob("*")):
        path = file.relative_to(making.folder).as_posix()
        regular = file.is_file() and not file.is_symlink()
        if regular and path in outs and (path in own or _md5(file) == locked.get(path)):
            target = within(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return making.patch is not None


def check_outs(folder: Path) -> None:
    """Make sure that all that DVC would write in a folder stays in it.

    Raises:
        AttuneError: if not.
    """
    from dvc.repo import Repo

    if not (folder / ".dvc").is_dir():
        return  # no project of DVC's, which is told of later
    root = os.path.realpath(folder)
    with Repo(str(folder)) as repo:
        for out in repo.index.outs:
            path = os.path.relpath(str(out.fs_path), root) if out.is_in_repo else str(out.def_path)
            if not out.is_in_repo:
                raise AttuneError(
                    f"dvc.yaml has an out that is outside of the project: {shown(path, 120)}",
                    "such a version cannot be restored; its files are among the artifacts of its run",
                )
            within(folder, path)


def _apply(folder: Path, patch: Path) -> None:
    named = git(folder, "apply", "--numstat", "-z", "--", str(patch)).split("\0")
    paths = [line.split("\t", 2)[-1] for line in named if line]
    if strange := [path for path in paths if not {*Path(path).parts[:1]} & {*SOURCES}]:
        told = f"the patch would change {shown(strange[0], 120)}"
        raise AttuneError(f"{told}, which is no code of a stage and no configuration", LOOK)
    git(folder, "apply", "--whitespace=nowarn", "--", str(patch))  # writes through no link
    root = Path(os.path.realpath(folder))
    for path in dict.fromkeys(paths):
        link = folder / path
        leads = link.is_symlink() and not Path(os.path.realpath(link)).is_relative_to(root)
        if leads or (link.is_symlink() and len(Path(path).parts) == 1):
            raise AttuneError(f"the patch makes {shown(path, 120)} a link that leads elsewhere", LOOK)


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
