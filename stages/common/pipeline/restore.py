"""Outs of an earlier run that a stage took away and did not replace are put back, by the hashes in `dvc.lock`.

DVC removes the outs of a stage before it runs it. A stage that fails puts its own back; after one that was killed,
`make` and the flows do it. Reports and curves that Git keeps are in DVC's cache as well: its run cache keeps them.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from stages.common.pipeline.dvc_status import as_cached
from stages.common.pipeline.graph import read_lock


def restore_outs(stages: Iterable[str] | None = None, root: Path = Path()) -> list[str]:
    """Put back what is missing of the outs that `dvc.lock` names, as far as DVC's cache has it; return their paths.

    Outs that are there stay as they are. Whatever goes wrong is a warning: the next run makes what is missing.

    Args:
        stages: names; None: all stages of the lock.
        root: the project's folder.
    """
    try:
        names = {
            name: {out["path"] for out in entry.get("outs", []) if not (root / out["path"]).exists()}
            for name, entry in read_lock(root).items()
            if stages is None or name in stages
        }
        return _restore(root, names) if any(names.values()) else []
    except Exception as error:  # of DVC, of the disk, of a lock with conflicts: each is told by what needs it
        print(f"  warning: earlier outs were not put back: {error}", file=sys.stderr, flush=True)
        return []


def _restore(root: Path, missing: Mapping[str, set[str]]) -> list[str]:
    from dvc.repo import Repo

    restored = []
    with Repo(str(root)) as repo:
        outs = [(out, getattr(stage, "name", "")) for stage in repo.index.stages for out in stage.outs]
        for out, stage in sorted(outs, key=lambda one: not one[0].use_cache):
            if out.def_path in missing.get(stage, ()) and not out.exists and out.hash_info:
                if not out.use_cache:
                    repo.cache.local.cache_types = ["copy"]  # a file that Git keeps is never a link into the cache
                with as_cached(out):
                    if not out.changed_cache():
                        out.checkout(allow_missing=True)
                        restored.append(str(out.def_path))
    return restored
