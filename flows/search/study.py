"""The Optuna study behind `flows.tune`: asked for values, told how the training with them went.

It lies in .attune/tune/studies.db under a name made of all that its trials share, so the same search is taken up where
it was left, and changed data or code begin another one. What is drawn next depends on the seed and the trials so far,
never on how often the search was interrupted.
"""

import copy
import json
import time
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

STUDIES = WORK / "tune" / "studies.db"
FAILURES = 3  # trials in a row that fail: then something else is wrong

Say = Callable[[str], None]


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
        return json.loads(json.dumps(present(self.params, self.params.tune.space)))  # as the study gives it back

    def as_is(self) -> "optuna.trial.FrozenTrial | None":
        """Return the finished trial with params.yaml as it is."""
        done = [trial for trial in self.study.trials if trial.state.name == "COMPLETE"]
        return next((trial for trial in done if trial.user_attrs.get("as_is") == self.present), None)


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


def run_search(search: Search, say: Say) -> None:
    """Train until there are as many trials as asked for, or time is up.

    Raises:
        AttuneError: if params.yaml as it is cannot be trained with, several trials in a row fail, or files change.
    """
    _take_up(search.study)
    study, wanted = search.study, search.params.tune
    present_waits = any(
        trial.state.name == "WAITING" and trial.user_attrs.get("as_is") == search.present for trial in study.trials
    )
    if not search.as_is() and not present_waits:
        study.enqueue_trial(inside(wanted.space, search.present), user_attrs={"as_is": search.present})
    until = time.monotonic() + seconds_of(wanted.timeout) if wanted.timeout else None
    failures = 0
    while counted(study) < wanted.trials or not search.as_is():
        if until and time.monotonic() > until and search.as_is():
            say(f"the time (tune.timeout: {wanted.timeout}) is up after {counted(study)} of {wanted.trials} trials")
            return
        if study_name(search.params, search.metric) != study.study_name:
            raise AttuneError("the files that finetune reads changed while the search ran", "start it again")
        state, told = _one(search)
        say(told)
        failures = failures + 1 if state == "failed" else 0
        if failures == FAILURES:
            raise AttuneError(f"{FAILURES} trials in a row failed", "the lines above say why; narrow tune.space")


def counted(study: "optuna.Study") -> int:
    """Return how many trials have an outcome; one that ended with the search has none, nor has a failed first one."""
    return sum(
        trial.state.name in ("COMPLETE", "PRUNED")
        or (trial.state.name == "FAIL" and "reason" in trial.user_attrs and "as_is" not in trial.user_attrs)
        for trial in study.trials
    )


def ask(study: "optuna.Study", seed: int) -> "optuna.Trial":
    """Return the next trial. Its values depend on the seed and on the trials with an outcome, and on nothing else.

    So a trial that was running when the search was killed is drawn again with the same values.
    """
    from optuna import samplers

    study.sampler = samplers.TPESampler(seed=int(sha256_value([seed, counted(study)])[:8], 16))
    return study.ask()


def _take_up(study: "optuna.Study") -> None:
    """Close what was running when the search was killed; the lock tells that nothing is running now."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _one(search: Search) -> tuple[str, str]:
    """Run the next trial; return its state and a line about it."""
    study, space = search.study, search.params.tune.space
    asked = ask(study, search.params.seed)
    as_is = asked.user_attrs.get("as_is")
    if as_is is None:
        settings = draw(asked, space, search.params.finetune.strategy)
    else:
        settings = stated(as_is)
        for key in inside(space, as_is):
            suggest(asked, key, space[key])  # given, not drawn: the sampler is to learn from it, too
    asked.set_user_attr("settings", settings)
    number = counted(study) + 1
    asked.set_user_attr("name", number)  # Optuna's own numbers count those that were interrupted, too
    what = ", ".join(f"{key.removeprefix('finetune.')} {value}" for key, value in settings.items())
    what = f"trial {number}/{max(search.params.tune.trials, number)}  {what}{' (params.yaml)' if as_is else ''}"
    data = change(copy.deepcopy(search.data), settings)
    try:
        check_params(data)
    except AttuneError as error:
        return _end(search, asked, "pruned", error.what.splitlines()[-1].strip(), what)
    return _train(search, asked, prepare_trial(data), what)


def _train(search: Search, asked: "optuna.Trial", trial: Trial, what: str) -> tuple[str, str]:
    run_id = search.runs.begin(trial.params, trial.digest[:16], f"trial {asked.user_attrs['name']}")
    stopped: list[Epoch] = []

    def enough(epoch: Epoch) -> bool:
        asked.report(epoch.score(search.metric), round(epoch.epoch))
        last = epoch.epoch >= trial.params.finetune.num_train_epochs
        if not last and "as_is" not in asked.user_attrs and asked.should_prune():
            stopped.append(epoch)
        return bool(stopped)

    try:
        epochs = run_trial(trial, run_id, keep_model=search.keep_models, enough=enough)
    except TrialFailed as error:
        forget_checkpoints(trial)
        search.runs.end(run_id, "failed", error.what, trial.curve, {})
        ended = _end(search, asked, "failed", error.what, what)
        if "as_is" in asked.user_attrs:
            raise AttuneError(
                f"the training with params.yaml as it is failed; its last lines:\n{error.what}", "mend that first"
            ) from None
        return ended
    scores = best_epoch(epochs, trial.params).scores()
    if stopped:
        forget_checkpoints(trial)
        reason = f"after epoch {stopped[0].epoch:g} worse than half of the others were by then"
        search.runs.end(run_id, "pruned", reason, trial.curve, {})
        return _end(search, asked, "pruned", reason, what)
    search.runs.end(run_id, "complete", "", trial.curve, {f"best_{key}": score for key, score in scores.items()})
    asked.set_user_attr("epochs", len(epochs))
    asked.set_user_attr("scores", scores)
    return _end(search, asked, "complete", "", what, scores[f"validation_{search.metric}"])


def _end(
    search: Search, asked: "optuna.Trial", state: str, reason: str, what: str, value: float | None = None
) -> tuple[str, str]:
    """Tell the study how a trial went."""
    from optuna.trial import TrialState

    if reason:
        asked.set_user_attr("reason", reason)
    ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    search.study.tell(asked, value, ends[state])
    how = f"{search.metric} {value:.4f}" if value is not None else f"{state}: {reason}"
    return state, f"{what}: {how}"
