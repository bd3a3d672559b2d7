"""Runs that are killed end as one that is not: `python -m tests.campaigns.kills 7 20` (seed and times).

Each is killed with SIGKILL, and the same command is given again, with no hand on any file. It falls short if outs,
dvc.lock or the registry then differ from an uninterrupted run's, or if a stage that was recorded has run twice.
"""

import re
import sys
from random import Random

from tests.campaigns.runs import PLACE, WORK, Run, campaign
from tests.projects import Project

# when to kill: any time, or so many seconds after a stage's end, or a sign that DVC or MLflow write
MOMENTS = [(0.0, ""), (2.5, ": done in"), (0.1, "Updating lock file"), (0.1, "mlflow.db")]
SAID = re.compile("came back|is back|killed|going on from step|no whole|cannot|already|runs: ")


def kill(rng: Random, number: int, command: str, over: str, known: dict) -> tuple[Run, Run, str, str]:
    Project(WORK / over).copy(PLACE)
    (span, sign), until, at, seen = MOMENTS[number % 4], rng.randint(1, 8), [], 0
    after = rng.uniform(0, span or known["seconds"])

    def kills(run: Run) -> bool:
        nonlocal seen
        seen = seen + any(PLACE.glob("mlflow.db?*")) if sign == "mlflow.db" else run.text().count(sign)
        at.extend([run.seconds + after] * (not at and (not span or seen >= until)))
        return bool(at) and run.seconds >= at[0]

    killed, again = Run(command, kills), Run(command)
    begun, done = (re.findall(words, killed.text()) for words in (r"Running stage '(\w+)'", r"(\w+): done in"))
    in_dvc = bool(begun) and begun[-1:] == done[-1:]  # which may not have recorded the last stage yet
    twice = {*re.findall(r"(\w+): done in", again.text())} & {*(done[:-1] if in_dvc else done)}
    where = f"{'DVC after ' * in_dvc}{(begun or ['the start'])[-1]}" if killed.code else "not killed"
    said = "; ".join(line.strip() for line in again.text().splitlines() if SAID.search(line))
    return killed, again, f"{killed.seconds:5.1f} {where:20} {said[:200]}", " ".join(twice)


sys.exit(campaign(["nothing", "earlier"], " at s killed in            what was said, what ran twice", kill))
