"""The Git checkout that a model is trained in: its commit, and how the files differ from it. Only ever reads."""

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

COMMIT_TAG = "mlflow.source.git.commit"  # what MLflow's UI shows as the run's source
SHOWN_COMMIT_TAG = "attune.commit"  # the same where the UI hides its own tags: in the compare view
BRANCH_TAG = "mlflow.source.git.branch"
DIRTY_TAG = "attune.dirty"
SOURCES_TAG = "attune.sources"  # digest of code and configuration when the training began, uncommitted changes and all
# What a model depends on besides data: untracked data and what a run itself writes make no checkout dirty.
SOURCES = (
    *("stages", "dvc.yaml", "params.yaml", "recipes"),
    *("constraints.txt", "requirements.txt", "requirements-dev.txt"),
)
# New files of these kinds are kept with a model; of others nobody knows whether they are code, or data, or a secret.
KINDS = frozenset(
    {".py", ".pyi", ".j2", ".html", ".css", ".js", ".yaml", ".yml", ".toml", ".json", ".md", ".txt", ".cfg", ".ini"}
)
SECRETS = (  # names, in lower case
    *(".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", ".netrc", "_netrc", ".pgpass"),
    *("*credential*", "*secret*", "*password*", "*passwd*", "*api_key*", "*api-key*", "*apikey*", "*private*key*"),
    *("*service*account*", ".npmrc", ".pypirc", ".htpasswd", ".ssh", ".aws", "token", "token.txt", "token.json"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
)
OF_A_CALLER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
SECONDS = 60


def commit_tags() -> dict[str, str]:
    """Return the tags that say which commit is checked out and whether code or configuration differ from it.

    Without Git, or before its first commit, there are none.
    """
    commit = _git("rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return {}
    tags = {COMMIT_TAG: _text(commit), SHOWN_COMMIT_TAG: _text(commit)}
    changes = _git("status", "--porcelain", "--untracked-files=all", "-z", "--", *SOURCES)
    if changes is not None:
        tags[DIRTY_TAG] = str(any(map(_counts, changes.split(b"\0")))).lower()
    branch = _git("symbolic-ref", "--short", "--quiet", "HEAD")
    return tags | ({BRANCH_TAG: _text(branch)} if branch else {})


def _counts(change: bytes) -> bool:
    """Say whether a line of `git status` tells of more than a new file that is secret, which makes no model."""
    return bool(change) and not (change.startswith(b"?? ") and is_secret(_path(change[3:])))


@dataclass(frozen=True)
class Difference:
    """How code and configuration differ from a commit.

    Args:
        patch: as `git apply` takes it.
        left_out: new files that are not in it, as their names say that they are secret, or they are no code.
        repositories: Git repositories within, of which a patch can say nothing.
    """

    patch: bytes
    left_out: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()


def difference_from(commit: str, paths: Sequence[str] = SOURCES) -> Difference | None:
    """Return how files differ from a commit; new files count, ignored ones do not.

    The same files give the same bytes, whatever a person's Git settings are. Of new files, those of a kind that code
    and configuration have are in the patch, unless their names are those of secrets.

    Args:
        commit: full hash.
        paths: files and folders of the project.

    Returns:
        None where this clone does not have the commit, or Git fails.
    """
    with _indexed(commit, paths) as found:
        if found is None:
            return None
        own, left_out, repositories = found
        how = ("--cached", "--patch", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv")
        patch = _git("diff-index", *how, commit, "--", *paths, environment=own)
        raw = _git("diff-index", "--cached", "--raw", "--no-renames", "-z", commit, "--", *paths, environment=own)
        if patch is None or raw is None:
            return None
        modes, names = raw.split(b"\0")[0::2], raw.split(b"\0")[1::2]
        modules = [_path(name) for mode, name in zip(modes, names, strict=False) if b"160000" in mode.split(b" ")[:2]]
        return Difference(patch, tuple(left_out), tuple(dict.fromkeys([*repositories, *modules])))


def sources_digest(commit: str, without: Sequence[str] = (), paths: Sequence[str] = SOURCES) -> str:
    """Return a digest of code and configuration as they are now; nothing where Git fails.

    Args:
        commit: full hash, by which files are told from new ones.
        without: files and folders that do not count.
        paths: files and folders that do.
    """
    with _indexed(commit, paths) as found:
        if found is None:
            return ""
        own, left_out, repositories = found
        listed = _git("ls-files", "--stage", "-z", "--", *paths, environment=own)
        if listed is None:
            return ""
        gone = tuple(os.fsencode(path) for path in without)
        kept = [one for one in listed.split(b"\0") if not _within(one.partition(b"\t")[2], gone)]
        others = [os.fsencode(path) for path in (*left_out, *repositories) if not is_secret(path)]
        return hashlib.sha256(b"\0".join([*kept, *others])).hexdigest()


@contextmanager
def _indexed(commit: str, paths: Sequence[str]) -> Iterator[tuple[dict[str, str], list[str], list[str]] | None]:
    """Have the files as they are now in an index of their own, that of a commit otherwise.

    Yields:
        What the environment of Git has to say of it, new files that are not in it, repositories within; None: Git
        fails. Index and objects are temporary.
    """
    objects = _git("rev-parse", "--git-path", "objects")
    if objects is None:
        yield None
        return
    with TemporaryDirectory() as folder:
        quoted = str(Path(_text(objects)).resolve()).replace("\\", "\\\\").replace('"', '\\"')
        own = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"',
            "GIT_LITERAL_PATHSPECS": "1",
        }
        if _git("read-tree", commit, environment=own) is None:
            yield None
            return
        known = _git("ls-files", "-z", "--", *paths, environment=own) or b""
        there = [path for path in paths if _within_any(known, path)]
        listed = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *paths, environment=own)
        if listed is None or (there and _git("add", "--update", "--", *there, environment=own) is None):
            yield None
            return
        new = [_path(name) for name in listed.split(b"\0") if name]
        code = [path for path in new if is_code(path)]
        names = b"\0".join(map(os.fsencode, code))
        add = ("add", "--pathspec-from-file=-", "--pathspec-file-nul")
        if code and _git(*add, content=names, environment=own) is None:
            yield None
            return
        repositories = [path.rstrip("/") for path in new if path.endswith("/")]
        yield own, [path for path in new if path not in code and not path.endswith("/")], repositories


def is_secret(path: str) -> bool:
    """Say whether a file's name, or that of a folder above it, is one that secrets have."""
    return any(fnmatchcase(part.lower(), pattern) for part in Path(path).parts for pattern in SECRETS)


def is_code(path: str) -> bool:
    """Say whether a new file is one of code or configuration, by its name, and of no secret."""
    kind = Path(path).suffix.lower() in KINDS and not path.endswith("/")
    return kind and not is_secret(path) and not Path(path).is_symlink()


def _within_any(listed: bytes, path: str) -> bool:
    return any(_within(one, (os.fsencode(path),)) for one in listed.split(b"\0"))


def _within(name: bytes, paths: Sequence[bytes]) -> bool:
    return any(name == path or name.startswith(path + b"/") for path in paths)


def _path(name: bytes) -> str:
    return os.fsdecode(name)


def _git(*arguments: str, content: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes | None:
    """Return what a git command prints; None if it fails or there is no Git here."""
    inherited = {name: value for name, value in os.environ.items() if name not in OF_A_CALLER}
    try:
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *arguments],
            env={**inherited, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(environment or {})},
            input=content,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace").strip()
