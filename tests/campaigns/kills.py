"""`python -m tests.campaigns.kills --seed 7 --times 20`: runs killed at random moments end as one that was not.

Each time a run, over nothing or over an earlier result, is killed with SIGKILL, its whole process group, and the same
command is given again, with no hand on any file. It falls short if outs, dvc.lock or the registry then differ from an
uninterrupted run's, or a stage that was recorded has run again. `--first 5 --work FOLDER` does a campaign in parts.
"""

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from stages.common.errors import AttuneError
from stages.common.pipeline.dvc_files import check_lock
from tests.campaigns.runs import Run, differing, left, small_project
from tests.projects import Project

MOMENTS = ("any", "end", "lock", "any", "database")  # in turn: half of all around the writing of DVC and MLflow
SAID = re.compile("came back|is back|half-written|going on from step|are put back|no whole|cannot|already|runs: ")


def references(work: Path) -> dict[str, dict]:
    """Return what uninterrupted runs leave, and keep the two projects that they began with."""
    known = work / "references.json"
    if not known.exists():
        project, found = small_project(work / "project"), {}
        for name in ("new", "earlier"):
            if name == "earlier":  # a result is there, and other rows come
                lines = (project.root / "data/inbox/rows.csv").read_text().splitlines()
                project.inbox("rows.csv", "\n".join([*lines[:-10], ""]))
            project.copy(work / name)
            run = Run(project)
            assert run.go() == 0, run.text
            ends = [[at, min(t for t in run.times("Updating lock") if t > at)] for at in run.times(": done in")]
            found[name] = {"seconds": run.lines[-1][0], "ends": ends, "left": json.loads(json.dumps(left(project)))}
        known.write_text(json.dumps(found))
    return json.loads(known.read_text())


class Kill:
    """When to kill: drawn before the run begins, from the seed and the number of the kill."""

    def __init__(self, rng: random.Random, moment: str, reference: dict) -> None:
        self.moment, self.after = moment, rng.uniform(0, reference["seconds"])
        self.skipped = rng.randint(0, 7 if moment != "database" else 20)
        if moment == "end":  # between the end of a stage and its line in dvc.lock
            done, recorded = reference["ends"][self.skipped]
            self.after = rng.uniform(0, recorded - done + 0.3)
        elif moment != "any":
            self.after = rng.uniform(0, 0.1)
        self.seen, self.at = 0, None if moment != "any" else self.after

    def __call__(self, run: Run, seconds: float) -> bool:
        if self.at is None:
            if self.moment == "database":  # how often one was seen being written
                self.seen += any((run.project.root / f"mlflow.db{end}").exists() for end in (".new", "-journal"))
            else:
                self.seen = len(run.times(": done in" if self.moment == "end" else "Updating lock file"))
            self.at = seconds + self.after if self.seen > self.skipped else None
        return self.at is not None and seconds >= self.at


def hit(run: Run) -> str:
    """Return where the kill has hit: a stage, or DVC after it."""
    begun = re.findall(r"Running stage '(\w+)'", run.text)
    return "before ingest" if not begun else ("DVC after " if begun[-1] in run.stages() else "") + begun[-1]


def damage(project: Project) -> str:
    try:
        check_lock(project.root)
        return ""
    except AttuneError as error:
        return error.what


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.kills", description=__doc__)
    for name, default in (("seed", 7), ("times", 20), ("first", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--work", type=Path, help="a folder to keep the references in")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a run that goes on is ended, too
    work, short = options.work or Path(tempfile.mkdtemp(prefix="kills-")), 0
    work.mkdir(exist_ok=True, parents=True)
    known = references(work)
    print(
        f"seed {options.seed}\n  no  command over    killed in              at s  identical  again  what was said",
        flush=True,
    )
    for number in range(options.first, options.first + options.times):
        rng = random.Random(f"{options.seed} {number}")
        over, command = rng.choice(["new", "earlier"]), rng.choice(["make", "make", "flow"])
        shutil.rmtree(work / "project", ignore_errors=True)
        project = Project(work / over).copy(work / "project")
        killed, second = Run(project, command), Run(project, command)
        code = killed.go(Kill(rng, MOMENTS[number % len(MOMENTS)], known[over]))
        broken = damage(project)
        ended = second.go()
        differs = differing(known[over]["left"], json.loads(json.dumps(left(project))))
        begun, done = killed.stages("':"), killed.stages()
        recorded = done[:-1] if begun[-1:] == done[-1:] else done  # of the last one, DVC may not know yet
        again = [name for name in second.stages() if name in recorded]
        fault = ended != 0 or differs or again
        short += bool(fault)
        said = [line.strip() for line in second.text.splitlines() if SAID.search(line)]
        where = hit(killed) if code else "not killed"
        print(f"{number:4}  {command:7} {over:7} {where:20} {killed.lines[-1][0] if killed.lines else 0:6.1f}  "
              f"{differs or ('yes' if ended == 0 else f'exit {ended}'):9}  {len(again):5}  "
              f"{'; '.join(filter(None, [broken, *said]))[:300]}", flush=True)  # fmt: skip
        if fault:
            (work / f"short-{number}.log").write_text(f"{killed.text}\n\n--- again\n{second.text}")
            project.copy(work / f"short-{number}")
    print(f"{options.times} kills, {short} fell short" + (f": see {work}" if short else ""))
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
