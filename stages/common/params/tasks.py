"""What params, flows and reports have to know of a task without importing it: `stages/tasks/NAME.toml`, as a TaskSpec.

The files are data, so that `make check` imports no task (and no torch), and a new task needs no change outside of
`stages/tasks`: its facts in a file named as on the Hub, and its hooks in a module (see `stages/tasks/base.py`).
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "tasks"


@dataclass(frozen=True)
class Score:
    """A number that a task is scored by, of 0 to 1 unless `unbounded`."""

    name: str  # in reports, params and MLflow: exact_match
    title: str  # for people: exact match
    greater_is_better: bool = True
    unbounded: bool = False
    share: bool = False  # of the rows: then its interval on few rows is Wilson's
    measured: str = "finetune"  # where first: in training already, in evaluate, or there of answers that are generated


@dataclass(frozen=True)
class TaskSpec:
    """The facts of a task."""

    name: str  # as in params.yaml and on the Hub: multi-label
    title: str  # what the model learns to do, in a few words
    scores: tuple[Score, ...]  # the first is the default of params; the first two are the headline and those of slices
    losses: tuple[str, ...]  # the first is the default
    baselines: tuple[str, ...]  # all of them are the default
    # keys of params (with a value, if only that) that not all tasks have: see `foreign_knob`
    knobs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # knobs that this task has not, and all others have
    base: str = "encoder"  # what is fine-tuned: an encoder, or a language model
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of keys of params, in place of those of all tasks

    @property
    def main(self) -> Score:
        """The score that counts where params name none."""
        return self.scores[0]

    @property
    def headline(self) -> tuple[Score, ...]:
        """The scores that are shown first."""
        return self.scores[:2]

    @property
    def of_slices(self) -> Score:
        """The score that slices are shown with: one of the headline that is a share of the rows, else the main one."""
        return next((score for score in self.headline if score.share), self.main)

    def score(self, name: str) -> Score:
        """Return a score by its name, or `loss`, of which less is better; a KeyError if the task has none such."""
        return {score.name: score for score in (*self.scores, Score("loss", "loss", False, True))}[name]


def task_names() -> list[str]:
    """Return the names of all tasks."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


@cache
def task_spec(name: str) -> TaskSpec:
    """Return the facts of a task; a FileNotFoundError if there is no such task."""
    facts: dict[str, Any] = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    facts["scores"] = [Score(**score) for score in facts["scores"]]
    frozen: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    return TaskSpec(name, **frozen)


def with_defaults(data: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return params with the defaults of a task where they set nothing; what is no section stays, and is refused."""
    result = dict(data)
    for name, value in defaults.items():
        first, _, rest = name.partition(".")
        if not rest:
            result.setdefault(first, value)
        elif isinstance(below := result.get(first, {}), Mapping):
            result[first] = with_defaults(below, {rest: value})
    return result


def foreign_knob(task: str, path: Sequence[str], value: object) -> tuple[tuple[str, ...], str] | None:
    """Return where params set a knob that other tasks have and this one has not, and the reason; None: they do not.

    A knob is a key of params such as `ingest.range`, with all that is below it, or one value of a key, such as
    `evaluate.thresholds.metric: f1`. Of several that fit, the longest counts: the tasks that list it have it. The path
    has the keys, and numbers in lists, that lead to what is set to this value.
    """
    key, specs = _without_numbers(path), [task_spec(name) for name in task_names()]
    knobs = {knob for spec in specs for knob in (*spec.knobs, *spec.without)}
    fits = [knob for knob in knobs if knob == f"{key}: {value}" or f"{key}.".startswith(f"{knob}.")]
    knob = max(fits, key=len, default="")
    lacking = [spec.name for spec in specs if knob in spec.without]
    tasks = [spec.name for spec in specs if (spec.name not in lacking if lacking else knob in spec.knobs)]
    if not knob or task in tasks:
        return None
    place = tuple(path)
    while f"{_without_numbers(place[:-1])}.".startswith(f"{knob}."):
        place = place[:-1]
    of = f"the task{'s'[: len(tasks) - 1]} {', '.join(tasks)} (task is {task}): take it out"
    return place, f"{f'{value!r} ' if ': ' in knob else ''}is a knob of {of}"


def _without_numbers(path: Sequence[str]) -> str:
    return ".".join(part for part in path if not part.isdigit())
