"""The Optuna study behind `flows.tune`, and the objective that it calls: a training with other params.

The study lies in .attune/tune/studies.db under a name made of all that its trials share: the same search goes on where
it stopped, and changed data or code begin another one. What is drawn next depends on the seed and the trials so far,
never on how often the search was interrupted.
"""

import copy
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.running.stage_process import seconds_of
from flows.search.epochs import Epoch, best_epoch
from flows.search.params_patch import change, set_keys
from flows.search.search_space import draw, inside, present, stated, suggest
from flows.search.trials import Trial, TrialFailed, digests, forget_checkpoints, prepare_trial, run_trial
from stages.common.digests import sha256_value
from stages.common.errors import AttuneError
from stages.common.graph import read_graph
from stages.common.params import Params, check_params
from stages.common.params.finetune import GREATER_IS_BETTER
from stages.common.stage import WORK
from stages.common.tracking.nested import NestedRuns

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STUDIES = WORK / "tune" / "studies.db"
FAILURES = 3  # trials in a row that fail: then something else is wrong


@dataclass(frozen=True)
class Search:
    """A study and what its trials share."""

    data: Any  # params.yaml as it was read
    params: Params
    metric: str
    study: "optuna.Study"
    runs: NestedRuns
    keep_models: bool

    @property
    def present(self) -> dict[str, Any]:
        """The values that the searched parameters have in params.yaml."""
        return json.loads(json.dumps(present(self.params, self.params.tune.space)))  # as the study returns it

    def as_is(self, state: str = "COMPLETE") -> "FrozenTrial | None":
        """Return the trial with params.yaml as it is, if it is in that state."""
        trials = (trial for trial in self.study.trials if trial.user_attrs.get("as_is") == self.present)
        return next((trial for trial in trials if trial.state.name == state), None)


def open_search(data: Any, params: Params, metric: str, *, keep_models: bool) -> Search:
    """Open or begin the study that these params and the data describe."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    STUDIES.parent.mkdir(parents=True, exist_ok=True)
    name, pruner = study_name(params, metric), params.tune.pruner
    median = optuna.pruners.MedianPruner(pruner.startup_trials, pruner.warmup_epochs)
    study = optuna.create_study(
        storage=f"sqlite:///{STUDIES.resolve()}",
        study_name=name,
        direction="maximize" if GREATER_IS_BETTER[metric] else "minimize",
        load_if_exists=True,
        pruner=median if pruner.kind == "median" else optuna.pruners.NopPruner(),
    )
    searched = ", ".join(key.removeprefix("finetune.") for key in params.tune.space)
    runs = NestedRuns(params, name, f"search: {searched}", {"attune.study": name})
    return Search(data, params, metric, study, runs, keep_models)


def study_name(params: Params, metric: str) -> str:
    """Return the digest of what the trials share: data, code, seed, params that are not searched, space and metric."""
    fixed = params.model_dump(mode="json", by_alias=True, include={"task", "seed", "finetune"})
    set_keys(fixed, dict.fromkeys(params.tune.space))
    space = {key: dimension.model_dump(mode="json") for key, dimension in params.tune.space.items()}
    files = digests({dep: Path(dep) for dep in read_graph()["finetune"].deps})
    return sha256_value([fixed, space, metric, files])[:16]


def run_search(search: Search, say: Callable[[str], None]) -> None:
    """Train until there are as many trials as asked for, or time is up; the first is params.yaml as it is.

    Raises:
        AttuneError: if params.yaml as it is cannot be trained with, several trials in a row fail, or files change.
    """
    from optuna.trial import TrialState

    study, tune = search.study, search.params.tune
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # of a search that was killed: tune holds a lock
        study.tell(trial.number, state=TrialState.FAIL)
    if not search.as_is() and not search.as_is("WAITING"):
        study.enqueue_trial(inside(tune.space, search.present), user_attrs={"as_is": search.present})

    def report(study: "optuna.Study", trial: "FrozenTrial") -> None:
        say(_line(search, trial))
        last = with_outcome(study)[-FAILURES:]
        if len(last) == FAILURES and all(trial.state == TrialState.FAIL for trial in last):
            raise AttuneError(f"{FAILURES} trials in a row failed", "the lines above say why; narrow tune.space")
        seed_sampler(study, search.params.seed)

    seed_sampler(study, search.params.seed)
    study.optimize(
        lambda trial: _objective(search, trial),
        n_trials=max(tune.trials - len(with_outcome(study)), 0 if search.as_is() else 1),
        timeout=seconds_of(tune.timeout) if tune.timeout else None,
        catch=(TrialFailed,),
        callbacks=[report],
    )
    if not search.as_is():
        raise AttuneError(f"tune.timeout ({tune.timeout}) leaves no time for a trial", "raise it")
    if (number := len(with_outcome(study))) < tune.trials:
        say(f"the time (tune.timeout: {tune.timeout}) is up after {number} of {tune.trials} trials")


def with_outcome(study: "optuna.Study") -> list["FrozenTrial"]:
    """Return the trials that count; one that ended with the search has no outcome, nor has a failed first one."""
    return [
        trial
        for trial in study.trials
        if trial.state.name in ("COMPLETE", "PRUNED") or (trial.state.name == "FAIL" and "reason" in trial.user_attrs)
    ]


def seed_sampler(study: "optuna.Study", seed: int) -> None:
    """Let the next draw depend on the seed and the trials with an outcome, and on nothing else.

    So a trial that was running when the search was killed is drawn again with the same values.
    """
    from optuna.samplers import TPESampler

    study.sampler = TPESampler(seed=int(sha256_value([seed, len(with_outcome(study))])[:8], 16))


def _objective(search: Search, asked: "optuna.Trial") -> float:
    """Train with the values of a trial, and return its score.

    Raises:
        TrialPruned: if the values contradict other settings, or the training was ended early.
        TrialFailed: if the training failed.
        AttuneError: if that was the one with params.yaml as it is, or files have changed.
    """
    if study_name(search.params, search.metric) != search.study.study_name:
        raise AttuneError("the files that finetune reads changed while the search ran", "start it again")
    space, as_is = search.params.tune.space, asked.user_attrs.get("as_is")
    if as_is is None:
        settings = draw(asked, space, search.params.finetune.strategy)
    else:
        settings = stated(as_is)
        for key in inside(space, as_is):
            suggest(asked, key, space[key])  # given, not drawn: the sampler learns from it too
    asked.set_user_attr("settings", settings)
    asked.set_user_attr("name", len(with_outcome(search.study)) + 1)  # Optuna's number counts interrupted ones too
    data = change(copy.deepcopy(search.data), settings)
    try:
        check_params(data)
    except AttuneError as error:
        raise _pruned(asked, error.what.splitlines()[-1].strip()) from None
    trial = prepare_trial(data)
    run_id = search.runs.begin(trial.params, trial.digest[:16], f"trial {asked.user_attrs['name']}")
    try:
        return _train(search, asked, trial, run_id)
    except TrialFailed as error:
        forget_checkpoints(trial)
        search.runs.end(run_id, "failed", error.what, trial.curve, {})
        if as_is is not None:
            raise AttuneError(
                f"the training with params.yaml as it is failed; its last lines:\n{error.what}", "mend that first"
            ) from None
        asked.set_user_attr("reason", error.what)
        raise


def _train(search: Search, asked: "optuna.Trial", trial: Trial, run_id: str) -> float:
    stopped: list[Epoch] = []

    def enough(epoch: Epoch) -> bool:
        asked.report(epoch.score(search.metric), round(epoch.epoch))
        last = epoch.epoch >= trial.params.finetune.num_train_epochs
        if not last and "as_is" not in asked.user_attrs and asked.should_prune():
            stopped.append(epoch)
        return bool(stopped)

    epochs = run_trial(trial, run_id, keep_model=search.keep_models, enough=enough)
    if stopped:
        forget_checkpoints(trial)
        reason = f"after epoch {stopped[0].epoch:g} worse than half of the others were by then"
        search.runs.end(run_id, "pruned", reason, trial.curve, {})
        raise _pruned(asked, reason)
    best = best_epoch(epochs, trial.params)
    search.runs.end(run_id, "complete", "", trial.curve, best.metrics())
    asked.set_user_attr("epochs", len(epochs))
    return best.score(search.metric)


def _pruned(asked: "optuna.Trial", reason: str) -> Exception:
    from optuna import TrialPruned

    asked.set_user_attr("reason", reason)
    return TrialPruned(reason)


def _line(search: Search, trial: "FrozenTrial") -> str:
    """Return a line about a trial that has ended."""
    known = trial.user_attrs
    values = ", ".join(f"{key.removeprefix('finetune.')} {value}" for key, value in known["settings"].items())
    how = f"{search.metric} {trial.value:.4f}" if trial.state.name == "COMPLETE" else trial.state.name.lower()
    how += f": {known['reason']}" if "reason" in known else ""
    total = max(search.params.tune.trials, known["name"])
    return f"trial {known['name']}/{total}  {values}{' (params.yaml)' if 'as_is' in known else ''}: {how}"
