"""`python -m flows.lineage MODEL`: which commit, data and params made a registered version, and how to get it back."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flows.command import exit_status
from flows.git import asked
from flows.provenance.lineage import DIGEST, SPLITS, base_model_of, check_there, reason_of
from flows.provenance.restore import MODEL_OUT, Restored, check_folder, restore
from flows.provenance.versions import Version, fetch_kept, find_version
from flows.told.reports import read_report
from stages.common.errors import AttuneError
from stages.common.graph import read_lock
from stages.common.params import load_params
from stages.common.shown import visible
from stages.common.tracking.provenance import BRANCH_TAG, DIRTY_TAG, LOCK, MANIFEST, PATCH_TAG, RECIPE_TAG, SCORES


def main(arguments: list[str] | None = None) -> int:
    """Show where a version comes from, or restore it; returns 1 as well if a restore lacks the model."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _act(options), "interrupted; nothing was restored")


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


def _act(options: argparse.Namespace) -> int:
    from stages.common.tracking.store import connect, tracking_uri

    home = Path.cwd()
    if options.restore:
        check_folder(home, options.restore)  # before anything is fetched
    named = "/" in options.model or options.model.find("@") > 0
    name = "" if named else load_params().register_.model_name
    with TemporaryDirectory() as folder:
        try:
            check_there(tracking_uri())
            client = connect()
            version = find_version(client, options.model, name)
            kept = fetch_kept(client, version, Path(folder))
        except AttuneError:
            raise
        except Exception as error:  # of whatever kind: a server that is away, a missing driver, an unknown address
            what = f"MLflow cannot be asked: {reason_of(error)}"
            raise AttuneError(what, "make run, or set MLFLOW_TRACKING_URI to a server that answers") from None
        recorded = recorded_by(home, version.model)
        if options.restore:
            # Without a dvc.lock of its own, a version needs that of the commit that recorded its scores.
            commit = version.commit if (kept / LOCK).exists() else recorded or version.commit
            if not (commit := commit or recorded):
                what = f"the commit of {version.name} version {version.number} is not known"
                raise AttuneError(what, "its parts are in the registry, its reports among the artifacts of its run")
            return _report(
                restore(home, options.restore, version, kept, commit, lambda line: _say(f"  {line}")), commit
            )
        facts = facts_of(version, kept, recorded, client.tracking_uri)
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        _show(facts if options.params else {key: value for key, value in facts.items() if key != "params"})
    return 0


def recorded_by(home: Path, model: str) -> str:
    """Return the latest commit, of any branch or Attune's own references, whose scores are of a model, or nothing."""
    if not DIGEST.fullmatch(model):
        return ""
    found = asked(home, "log", "--all", "--format=%H", f"-S{model}", "--", SCORES).split()
    return next((commit for commit in found if model in asked(home, "show", f"{commit}:{SCORES}")), "")


def facts_of(version: Version, kept: Path, recorded: str, store: str) -> dict[str, Any]:
    """Return all that is known of where a version comes from.

    Args:
        version: as MLflow has it.
        kept: folder of what was kept with it.
        recorded: commit whose scores are of the model.
        store: address of MLflow.
    """
    manifest, tags, run = read_report(kept / MANIFEST), version.tags, version.run
    params = run.data.params if run else {}
    hashes = {out["path"]: out.get("md5") for stage in read_lock(kept).values() for out in stage.get("outs", [])}
    base, weights = base_model_of(manifest)
    link = f"{store}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" if run else ""
    differing = tags.get(RECIPE_TAG, "").partition(", but ")[2].split(", ")
    model = shlex.quote(f"{version.name}/{version.number}")
    return {
        "model": version.name,
        "version": version.number,
        "aliases": version.aliases,
        "registered": version.registered,
        "run": {"id": run.info.run_id, "name": run.info.run_name} if run else {},
        "link": link if link.startswith("http") else "",
        "commit": {
            "hash": version.commit,
            "branch": tags.get(BRANCH_TAG, ""),
            "uncommitted": tags.get(DIRTY_TAG, ""),
            "patch": tags.get(PATCH_TAG, ""),
            "recorded_by": recorded,
        },
        "sources": [
            {key: source.get(key) for key in ("origin", "sha256", "rows_read")}
            for source in manifest.get("sources", [])
        ],
        "splits": {path: hashes[path] for path in SPLITS if path in hashes},
        "base_model": {"origin": base, "sha256": weights},
        "digest": version.model,
        "recipe": tags.get(RECIPE_TAG, ""),
        "differing": {key: params[key] for key in differing if key in params},
        "params": {key: value for key, value in params.items() if not key.startswith("champion.")},  # the ledger
        "scores": {key: value for key, value in run.data.metrics.items() if _is_score(key)} if run else {},
        "tags": {key: value for key, value in sorted(tags.items()) if key.startswith("attune.")},
        "restore": f"make lineage MODEL={model} ARGS='--restore ../restored-{version.number}'",
    }


def _is_score(metric: str) -> bool:
    return metric.startswith("test_") and "." not in metric  # else it is of a class, a slice or a table


def _show(facts: Mapping[str, Any]) -> None:
    """Print facts, a line for each."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            lines = [f"{key} {one}" for key, one in value.items() if one not in ("", None)]
        else:
            lines = [" ".join(map(str, one.values())) if isinstance(one, Mapping) else str(one) for one in _list(value)]
        for number, line in enumerate(lines):
            _say(f"{'' if number else name:12} {line}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _report(found: Restored, commit: str) -> int:
    """Print what came back; return the exit status."""
    folder = shlex.quote(str(found.folder))
    _say(f"{folder}: commit {commit[:10]}{', with the changes that were not committed' if found.patched else ''}")
    if found.from_registry:
        _say(f"  from the registry, since DVC does not have it: {', '.join(found.from_registry)}")
    for path in found.missing:
        _say(f"  missing: {path}, which neither DVC's cache, nor a remote, nor the registry has")
    for line in found.differs:
        _say(f"  not as it was: {line}")
    if found.missing or found.differs:
        _say(f"  to make it again: cd {folder} && make run")
    else:
        _say("  all is as dvc.lock says: `dvc status` there finds nothing to do")
    _say(f"to remove it: git worktree remove --force {folder}")
    return 1 if MODEL_OUT in found.missing else 0


def _say(line: str) -> None:
    print(visible(line))  # names and tags may be a stranger's


if __name__ == "__main__":
    sys.exit(main())
