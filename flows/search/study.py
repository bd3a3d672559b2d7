"""The Optuna study behind `flows.tune`, and the objective that it calls: a training with other params.

The study lies in .attune/tune/studies.db under a name made of all that its trials share: the same search goes on where
it stopped, and changed data or code begin another one. What is suggested next depends on the seed and the trials so
far, never on how often the search was interrupted.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from flows.execution.stage_process import seconds_of
from flows.search.params_patch import STRATEGY, change
from flows.search.trials import Epoch, TrialFailed, digests, prepare_trial, train_trial
from stages.common.digests import sha256_value
from stages.common.errors import AttuneError
from stages.common.params import Params
from stages.common.params.finetune import OPTIONS
from stages.common.params.tune import Dimension, number_type
from stages.common.pipeline.graph import read_graph
from stages.common.pipeline.stage import WORK
from stages.tracking.live import NestedRuns
from stages.tracking.runs import flatten

STUDIES = WORK / "tune" / "studies.db"
DIGITS = 3  # of a number suggested from a range: more would only look like knowledge


class Search:
    """A study, with params.yaml as it was read and checked, and the metric that its trials are compared by."""

    def __init__(self, data: Any, params: Params, metric: str) -> None:
        self.data, self.params, self.metric = data, params, metric
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        STUDIES.parent.mkdir(parents=True, exist_ok=True)
        name, pruner = self._name(), params.tune.pruner
        median = optuna.pruners.MedianPruner(pruner.startup_trials, pruner.warmup_epochs)
        self.study = optuna.create_study(
            storage=f"sqlite:///{STUDIES.resolve()}",
            study_name=name,
            direction="maximize" if params.spec.score(metric).greater_is_better else "minimize",
            load_if_exists=True,
            pruner=median if pruner.kind == "median" else optuna.pruners.NopPruner(),
        )
        searched = ", ".join(key.removeprefix("finetune.") for key in params.tune.space)
        self.runs = NestedRuns(params, name, f"search: {searched}", {"attune.study": name})

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that count: one that ended with the search has no outcome."""
        ended = self.study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
        return [trial for trial in ended if trial.state != TrialState.FAIL or "reason" in trial.user_attrs]

    def run(self, report: Callable[[str], None]) -> float:
        """Train until there are as many trials as asked for, or time is up; return the score of params.yaml as it is.

        Raises:
            AttuneError: if params.yaml as it is cannot be trained with, or files change.
        """
        study, tune = self.study, self.params.tune
        score = train_trial(prepare_trial(self.data), self.runs, "params.yaml")[1][self.metric]
        report(f"params.yaml as it is: {self.metric} {score:.4f}")
        for trial in study.get_trials(states=(TrialState.RUNNING,)):  # of a search that was killed: tune holds a lock
            study.tell(trial.number, state=TrialState.FAIL)
        for number, trial in enumerate(self.trials, start=1):
            report(self._line(number, trial))

        study.optimize(
            self._objective,
            n_trials=max(tune.trials - 1 - len(self.trials), 0),
            timeout=seconds_of(tune.timeout) if tune.timeout else None,
            catch=(TrialFailed,),
            callbacks=[lambda _, trial: report(self._line(len(self.trials), trial))],
        )
        return score

    def _name(self) -> str:
        """Return the digest of what the trials share: data, code, seed, params that are not searched, space, metric."""
        space = self.params.tune.space
        dumped = self.params.model_dump(mode="json", by_alias=True, include={"task", "seed", "finetune"})
        fixed = {key: value for key, value in flatten(dumped) if key not in space}
        searched = {key: dimension.model_dump(mode="json") for key, dimension in space.items()}
        files = digests({dep: Path(dep) for dep in read_graph()["finetune"].deps})
        return sha256_value([fixed, searched, self.metric, files])[:16]

    def _objective(self, trial: optuna.Trial) -> float:
        """Train with the values of a trial, and return its score."""
        if self._name() != self.study.study_name:
            raise AttuneError("the files that finetune reads changed while the search ran", "start it again")
        # From the seed and the trials with an outcome: one that was killed gets the same values again.
        number = len(self.trials) + 1  # Optuna's counts interrupted ones, too
        self.study.sampler = optuna.samplers.TPESampler(seed=int(sha256_value([self.params.seed, number])[:8], 16))
        settings = suggest_settings(trial, self.params)
        trial.set_user_attr("settings", settings)

        def watch(epoch: Epoch) -> None:
            trial.report(epoch[self.metric], round(epoch["epoch"]))
            if epoch["epoch"] < training.params.finetune.num_train_epochs and trial.should_prune():
                reason = f"after epoch {epoch['epoch']:g} worse than half of the others were by then"
                raise optuna.TrialPruned(reason)

        try:
            try:
                training = prepare_trial(change(copy.deepcopy(self.data), settings))
            except AttuneError as error:
                raise optuna.TrialPruned(error.what.splitlines()[-1].strip()) from None
            return train_trial(training, self.runs, f"trial {number}", watch)[1][self.metric]
        except (optuna.TrialPruned, TrialFailed) as error:
            trial.set_user_attr("reason", str(error))
            raise

    def _line(self, number: int, trial: FrozenTrial) -> str:
        """Return a line about a trial that has ended."""
        settings, reason = trial.user_attrs["settings"], trial.user_attrs.get("reason", "")
        values = ", ".join(f"{key.removeprefix('finetune.')} {value}" for key, value in settings.items())
        complete = trial.state == TrialState.COMPLETE
        outcome = f"{self.metric} {trial.value:.4f}" if complete else f"{trial.state.name.lower()}: {reason}"
        return f"trial {number}/{max(self.params.tune.trials - 1, number)}  {values}: {outcome}"


def suggest_settings(trial: optuna.Trial, params: Params) -> dict[str, Any]:
    """Return a value for each parameter; options of a strategy get one only where that strategy is suggested."""
    settings: dict[str, Any] = {}
    for key in sorted(params.tune.space, key=lambda key: key != STRATEGY):  # the strategy first
        section = key.split(".")[1]  # of finetune.lora.r: lora
        if section not in OPTIONS or section == settings.get(STRATEGY, params.finetune.strategy):
            settings[key] = _suggest(trial, key, params.tune.space[key])
    return settings


def _suggest(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    low, high = dimension.low, dimension.high
    if dimension.choices is not None:
        return trial.suggest_categorical(key, dimension.choices)
    assert low is not None and high is not None
    if number_type(key) is int:
        return trial.suggest_int(key, int(low), int(high), step=int(dimension.step or 1), log=dimension.log)
    value = trial.suggest_float(key, low, high, step=dimension.step, log=dimension.log)
    return min(max(float(f"{value:.{DIGITS if dimension.step is None else 12}g}"), low), high)
