"""`python -m flows.lineage MODEL`: which commit, data and params made a registered version, and how to get it back."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from flows.command import exit_status
from flows.git import object_at
from flows.provenance.commits import commits_that_record, subject_of
from flows.provenance.lineage import NoStore, check_there
from flows.provenance.params import closest_recipe, params_in
from flows.provenance.place import checked, command_path
from flows.provenance.restore import Restored, restore
from flows.provenance.told import Story, as_json, show
from flows.provenance.versions import MODEL_OUT, Making, Version, fetch_making, find_version
from flows.told.redact import redacted
from stages.common.errors import AttuneError
from stages.common.params import load_params
from stages.common.shown import shown, visible
from stages.common.tracking.making import LOCK, SCORES

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCAL_UI = "http://127.0.0.1:5000"  # where `make ui` opens it
PLAIN = re.compile(r"[\w.@/-]+")


def main(arguments: list[str] | None = None) -> int:
    """Say where a version comes from, or restore it."""
    asked = _parser().parse_args(arguments)
    return exit_status(lambda: _act(asked), "interrupted; what a restore had begun is named by `git worktree list`")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.lineage", description=str(__doc__).partition(": ")[2])
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", default="", help="NAME@champion, NAME/3, @champion, 3; nothing: champion"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs")
    how.add_argument("--params", action="store_true", help="every setting")
    how.add_argument("--restore", metavar="FOLDER", type=Path, help="make a folder in which all is as it was")
    return parser


def _act(asked: argparse.Namespace) -> None:
    from stages.common.tracking.store import Unreachable, connect, tracking_uri

    console, home = Console(highlight=False, soft_wrap=True), Path.cwd()
    name = "" if "/" in asked.model or asked.model.find("@") > 0 else load_params().register_.model_name
    if asked.restore:
        checked(home, asked.restore)  # before anything is fetched
    with _store_errors():
        try:
            check_there(tracking_uri())
            client = connect()
        except Unreachable as error:
            fix = "start the server, or unset MLFLOW_TRACKING_URI"
            raise AttuneError(f"MLflow cannot be reached: {error}", fix) from None
        version = find_version(client, asked.model, name)
    with TemporaryDirectory() as folder:
        with _store_errors():
            making = fetch_making(client, version, Path(folder))
        story = _story(client, version, making, home)
        if asked.json:
            print(json.dumps(as_json(story), indent=2))
        elif asked.restore:
            _restore(story, asked.restore, home, console)
        else:
            show(story, console, every_param=asked.params)


@contextmanager
def _store_errors() -> Iterator[None]:
    """Have whatever is wrong with the store told in a line, without its password."""
    from stages.common.tracking.store import tracking_uri, without_password

    try:
        yield
    except AttuneError:
        raise
    except NoStore as error:
        where = shown(without_password(redacted(tracking_uri())), 200)
        raise AttuneError(f"MLflow cannot be asked: {where}: {error}", "make run, or set MLFLOW_TRACKING_URI") from None
    except Exception as error:  # of whatever kind: a driver that is not there, an address of no kind that MLflow knows
        told = without_password(redacted(str(error).partition("\n")[0])) or type(error).__name__
        raise AttuneError(f"MLflow cannot be asked: {shown(told.strip(), 200)}", "see MLFLOW_TRACKING_URI") from None


def _story(client: "MlflowClient", version: Version, making: Making | None, home: Path) -> Story:
    params = dict(version.params)
    if making:
        with suppress(AttuneError):  # of an Attune that had other settings: the run has them as well
            params = params_in(making.params)
    recipe, differing = closest_recipe(params, home) if params else ("", {})
    if making:
        recorded = commits_that_record(home, LOCK, making.md5(MODEL_OUT))
    else:
        recorded = commits_that_record(home, SCORES, version.model)
    uri = client.tracking_uri
    base = uri.rstrip("/") if uri.startswith(("http://", "https://")) else LOCAL_UI
    where = f"{base}/#/experiments/{version.experiment}/runs/{version.run}" if version.run else ""
    model, target = f"{version.name}/{version.number}", f"../{version.name}-{version.number}"
    if not PLAIN.fullmatch(model):
        model, target = str(version.number), f"../version-{version.number}"
    return Story(
        version=version,
        making=making,
        link=where if base != LOCAL_UI or not where else f"{where} (make ui)",
        subject=subject_of(home, version.commit),
        here=bool(version.commit and object_at(home, f"{version.commit}^{{commit}}")),
        recorded=recorded,
        recipe=recipe,
        differing=differing,
        params=params,
        command=f"make lineage MODEL={model} ARGS='--restore {target}'",
    )


def _restore(story: Story, folder: Path, home: Path, console: Console) -> None:
    from stages.common.tracking.packaging import fetch_package

    version = story.version
    recorded = next((one.hash for one in story.recorded), "")
    if story.making and story.making.patch:
        commit = version.commit  # which the patch is of
    else:
        commit = (version.commit if story.making else "") or recorded or version.commit
    if not commit:
        raise AttuneError(f"nobody knows the commit of {_said(version)}", "`make lineage` says what is known of it")
    try:
        found = restore(
            home,
            folder,
            version,
            story.making,
            commit,
            lambda beside: fetch_package(version.name, str(version.number), beside),
            lambda line: console.print(Text(f"  {visible(line)}")),
        )
    except AttuneError as error:
        others = [one.hash[:10] for one in story.recorded if one.hash != commit]
        if others and commit in error.what:
            also = f"; these have the same model in their {LOCK}: {', '.join(others)}"
            raise AttuneError(error.what, f"{error.fix}{also}") from None
        raise
    _tell(found, version, home, console)


def _tell(found: Restored, version: Version, home: Path, console: Console) -> None:
    where, folder = shown(str(found.folder), 300), command_path(found.folder)
    patched = ", with the changes that were not committed" if found.patched else ""
    lines = [
        f"{_said(version)} is in {where}",
        f"  commit {found.commit[:10]}{patched}; {MODEL_OUT} is the version's, byte for byte",
    ]
    if found.from_registry:
        lines.append(f"  from the registry, since DVC does not have it as recorded: {', '.join(found.from_registry)}")
    if found.missing:
        lines.append("  not there: neither DVC's cache, nor a remote, nor the registry has")
        lines += [f"    {shown(path, 160)}" for path in found.missing]
    if found.differs:
        lines.append("  not as it was:")
        lines += [f"    {shown(line, 160)}" for line in found.differs]
    if found.spoiled:
        lines.append("  DVC's cache holds other bytes than its names say, for all who share it. To mend it,")
        lines.append("  remove these files, and then fetch them again (dvc fetch) or make them (make run):")
        lines += [f"    rm -f {command_path(path)}" for path in found.spoiled]
    if found.missing or found.differs:
        lines.append(f"  to make what is missing: cd {folder} && make run")
        if (home / ".venv").is_dir():
            lines.append(f"  with this checkout's packages: ln -s {command_path(home / '.venv')} {folder}, before that")
    elif not found.spoiled:
        lines.append("  everything is as dvc.lock says: `dvc status` there finds nothing to do")
    lines.append(f"when you need it no more: git worktree remove --force {folder}")
    for line in lines:
        console.print(Text(line))


def _said(version: Version) -> str:
    return f"{shown(version.name, 60)} version {version.number}"


if __name__ == "__main__":
    sys.exit(main())
