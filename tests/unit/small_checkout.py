"""A checkout with a pipeline of two quick stages: real git, real DVC, nothing to train."""

import os
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

GRAPH = """stages:
  make:
    cmd: python make.py
    deps: [data/inbox, make.py]
    params: [seed]
    outs: [data/made.txt: {persist: true}]
  judge:
    cmd: python judge.py
    deps: [data/made.txt, judge.py]
    metrics: [reports/metrics.json: {cache: false, persist: true}]
"""
MAKE = """from pathlib import Path
inbox = "".join(file.read_text() for file in sorted(Path("data/inbox").iterdir()) if file.suffix == ".csv")
Path("data/made.txt").write_text(inbox + Path("params.yaml").read_text())
"""
JUDGE = """from pathlib import Path
Path("reports").mkdir(exist_ok=True)
Path("reports/metrics.json").write_text('{"accuracy": 0.%d}' % len(Path("data/made.txt").read_text()))
"""
IGNORED = [
    "/.attune/",
    "/.dvc/config.local",
    "/.dvc/tmp/",
    "/.dvc/cache/",
    "/.dvc/.gitignore",
    "/data/*",
    "!/data/inbox/",
]
FILES = {
    "dvc.yaml": GRAPH.replace("python", sys.executable),
    "make.py": MAKE,
    "judge.py": JUDGE,
    "params.yaml": "seed: 1\n",
    "constraints.txt": "prefect==1\n",
    ".dvc/config": "[core]\n    analytics = false\n    check_update = false\n",
    ".gitignore": "\n".join(IGNORED),
    "data/inbox/.gitignore": "*\n!.gitignore\n!*.dvc\n",
}


@dataclass(frozen=True)
class Checkout:
    """Somebody's own checkout."""

    root: Path

    def git(self, *arguments: str) -> str:
        """Run git as its owner does."""
        who = [f"GIT_{one}_{what}=me" for one in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
        environment = os.environ | dict(one.split("=") for one in who)
        return _output(["git", *arguments], self.root, environment).strip()

    def commit(self, **files: str) -> str:
        """Commit files, and return the commit."""
        for name, content in files.items():
            self.write(name, content)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "mine")
        return self.git("rev-parse", "HEAD")

    def write(self, name: str, content: str) -> Path:
        """Write a file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def seen(self) -> dict[str, str]:
        """Return all that its owner has: files, index, HEAD, branches, configuration; without what is the runs'."""
        own = {".attune/worktrees", ".git/worktrees", ".git/objects", ".git/refs/attune", ".git/logs/refs/attune"}
        own |= {".dvc/cache", ".dvc/tmp"}
        files = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_file() and not any(name.startswith(f"{folder}/") for folder in own):
                files[name] = sha256(path.read_bytes()).hexdigest()
        return files


def make_checkout(root: Path) -> Checkout:
    """Make a checkout of one commit, in which the pipeline has not run."""
    checkout = Checkout(root)
    root.mkdir(parents=True)
    checkout.git("init", "-q", "-b", "main")
    checkout.commit(**FILES)
    return checkout


def repro(folder: Path) -> list[str]:
    """Run the pipeline; return the stages that ran."""
    from dvc.repo import Repo

    with chdir(folder), Repo() as repo:
        return [stage.name for stage in repo.reproduce()]


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC, and return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", *arguments]
    return _output(command, folder, os.environ | {"PATH": path})


def _output(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
