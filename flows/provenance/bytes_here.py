"""Every byte of what was restored, held against `dvc.lock`: DVC believes the names of its cache's files."""

from collections.abc import Collection, Mapping
from pathlib import Path

from flows.reviewing.compared.outs import check_recorded
from flows.reviewing.revision import Revision
from stages.common.graph import Node, read_lock


def other_bytes(folder: Path, graph: Mapping[str, Node]) -> dict[str, str]:
    """Return the outs of a restored folder whose bytes are others than `dvc.lock` says, each with how."""
    checks = check_recorded(Revision("", "", "", folder, graph, read_lock(folder), {}))
    return {check.path: check.how for check in checks if check.verdict == "different"}


def objects_with_other_bytes(folder: Path, outs: Collection[str]) -> tuple[Path, ...]:
    """Return the files of DVC's cache that outs are made of, and that are not what their names say."""
    from dvc.repo import Repo
    from dvc_data.hashfile.hash import file_md5

    if not outs:
        return ()
    found = []
    with Repo(str(folder)) as repo:
        for out in repo.index.outs:
            if str(out.def_path) not in outs or not out.use_cache or not out.hash_info:
                continue
            tree = out.get_obj()
            files = [info for _, _, info in tree] if out.hash_info.isdir and tree else []
            for info in (out.hash_info, *files):
                path = Path(out.cache.oid_to_path(info.value))
                name = "md5" if info.name == "md5" else "md5-dos2unix"
                if path.is_file() and file_md5(str(path), name=name) != str(info.value).removesuffix(".dir"):
                    found.append(path)
    return tuple(dict.fromkeys(found))
