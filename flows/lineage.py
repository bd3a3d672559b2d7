"""`python -m flows.lineage MODEL`: which commit, data and params made a registered version, and how to get it back."""

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flows.command import program
from flows.model_versions.restore import check_folder, restore
from flows.model_versions.versions import Version, asking_mlflow, check_there, commit_of, fetch_kept, find_version
from flows.reporting.reports import SPLIT_FILES, base_model_of, read_report
from stages.common.display import visible
from stages.common.errors import AttuneError
from stages.common.params import load_params
from stages.common.pipeline.graph import read_lock
from stages.tracking.provenance import MANIFEST
from stages.tracking.store import connect, tracking_uri


@program("interrupted; nothing was restored")
def main(arguments: list[str] | None = None) -> int:
    """Show where a version comes from, or restore it; returns 1 as well if a restore lacks the model."""
    parser = argparse.ArgumentParser(prog="python -m flows.lineage", description=str(__doc__).partition(": ")[2])
    forms = "NAME@champion, NAME/3, @champion, 3; nothing: champion"
    parser.add_argument("model", metavar="MODEL", nargs="?", default="", help=forms)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--params", action="store_true", help="every setting as well")
    how.add_argument("--restore", metavar="FOLDER", type=Path, help="make a folder in which all is as it was")
    options = parser.parse_args(arguments)
    home = Path.cwd()
    target = options.restore and check_folder(home, options.restore)  # before anything is fetched
    named = "/" in options.model or options.model.find("@") > 0
    name = "" if named else load_params().register_.model_name
    with TemporaryDirectory() as folder:
        with asking_mlflow("make run, or set MLFLOW_TRACKING_URI to a server that answers"):
            check_there(tracking_uri())
            client = connect()
            version = find_version(client, options.model, name)
            kept = fetch_kept(client, version, Path(folder))
        commit = commit_of(home, version)
        if target:
            if not commit:
                what = f"the commit of {version.name} version {version.number} is not known"
                raise AttuneError(what, "its parts are in the registry, its reports among the artifacts of its run")
            return 0 if restore(home, target, version, kept, commit, _say) else 1
        facts = facts_of(version, kept, commit)
    if options.params and version.run:
        facts["params"] = _lines(version.run.data.params)
    for fact, lines in facts.items():
        for number, line in enumerate(lines):
            _say(f"{'' if number else fact:12} {line}")
    return 0


def facts_of(version: Version, kept: Path, commit: str) -> dict[str, list[str]]:
    """Return what is known of where a version comes from, in lines; `kept` is the folder of what was kept with it."""
    manifest, run = read_report(kept / MANIFEST), version.run
    hashes = {out["path"]: out.get("md5") for stage in read_lock(kept).values() for out in stage.get("outs", [])}
    metrics = run.data.metrics if run else {}  # with a dot: of a class, a slice or a table
    model = shlex.quote(f"{version.name}/{version.number}")
    return {
        "model": [f"{version.name} version {version.number}"],
        "aliases": version.aliases,
        "run": [f"{run.info.run_id} {run.info.run_name}"] if run else [],
        "commit": [commit or "not known"],
        "sources": [
            f"{source.get('origin')} {source.get('sha256')}, {source.get('rows_read')} rows"
            for source in manifest.get("sources", [])
        ],
        "splits": _lines({path: hashes[path] for path in SPLIT_FILES if path in hashes}),
        "base model": [" ".join(base_model_of(manifest))],
        "scores": _lines({key: value for key, value in metrics.items() if key.startswith("test_") and "." not in key}),
        "tags": _lines({key: value for key, value in sorted(version.tags.items()) if key.startswith("attune.")}),
        "restore": [f"make lineage MODEL={model} ARGS='--restore ../restored-{version.number}'"],
    }


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} {value}" for key, value in values.items()]


def _say(line: str) -> None:
    print(visible(line))  # names and tags may be a stranger's


if __name__ == "__main__":
    sys.exit(main())
