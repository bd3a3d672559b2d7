"""`python -m flows.tune`: search for better params of finetune with Optuna, and write the best as a params file.

A plain program rather than a Prefect flow: the study keeps all that is known of its trials and is taken up from there,
while Prefect's own server would take longer to start than many a trial to run.
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.command import exit_status
from flows.search.params_patch import difference, patched, read_text, write_params
from flows.search.study import Search, open_search, run_search, with_outcome
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params
from stages.common.params.loading import PARAMS_FILE, read_yaml
from stages.common.shown import visible
from stages.common.stage import alone

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

TUNED = Path("params.tuned.yaml")
SHOWN = 10  # trials in the table
ENOUGH_TO_WEIGH = 10  # finished trials, from which the params' importance is more than noise
CHANGES_THE_LOSS = ("loss", "focal_gamma", "label_smoothing_factor", "class_weights")


def main(arguments: list[str] | None = None) -> int:
    """Search until there are as many trials as `tune.trials` says; show the best, and write them."""
    asked = _parser().parse_args(arguments)
    return exit_status(
        lambda: _search(apply=asked.apply, keep_models=asked.keep_models),
        "the search was interrupted; the same command goes on with it",
    )


def _search(*, apply: bool, keep_models: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    data = read_yaml(PARAMS_FILE)
    params = check_params(data)
    metric = checked_metric(params)
    with alone("trials"):
        search = open_search(data, params, metric, keep_models=keep_models)
        run_search(search, lambda line: console.print(Text(visible(line))))
        console.print(_table(search))
        if weights := _importance(search.study):
            console.print(Text(weights))
        console.print(Text(_write_best(search, apply=apply)))


def checked_metric(params: Params) -> str:
    """Return the metric that is searched for.

    Raises:
        AttuneError: if there is nothing to search, or nothing to compare the trials by.
    """
    metric = params.tune.metric or params.finetune.metric_for_best_model
    if not params.tune.space:
        raise AttuneError("params.yaml: tune.space is empty", "say what to search: docs/tuning.md has an example")
    if params.finetune.train_on != "train":
        raise AttuneError(
            f"params.yaml: finetune.train_on is {params.finetune.train_on}: no row is left to compare trials by",
            "set it to train while you search",
        )
    if metric == "loss" and (found := [name for name in CHANGES_THE_LOSS if f"finetune.{name}" in params.tune.space]):
        raise AttuneError(
            f"params.yaml: tune.space holds finetune.{found[0]}, which changes what the loss measures",
            "set tune.metric: macro_f1, or accuracy",
        )
    return metric


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.tune", description="Search for better params of finetune.")
    parser.add_argument("--apply", action="store_true", help="write the best into params.yaml")
    parser.add_argument("--keep-models", action="store_true", help="keep the weights of trials in .attune/trials/")
    return parser


def _finished(search: Search) -> list["FrozenTrial"]:
    """Return the finished trials, the best first."""
    done = [trial for trial in search.study.trials if trial.state.name == "COMPLETE"]
    sign = -1 if search.study.direction.name == "MAXIMIZE" else 1
    return sorted(done, key=lambda trial: (sign * float(trial.value or 0.0), trial.number))


def _table(search: Search) -> Table:
    states = [trial.state.name for trial in with_outcome(search.study)]
    title = ", ".join(
        f"{states.count(state)} {what}"
        for state, what in {"COMPLETE": "trials finished", "PRUNED": "ended early", "FAIL": "failed"}.items()
    )
    table = Table(title=title, title_justify="left")
    keys = list(search.params.tune.space)
    for name in ("trial", search.metric, "epochs", *(key.removeprefix("finetune.") for key in keys)):
        table.add_column(Text(name), justify="right")
    for trial in _finished(search)[:SHOWN]:
        known = trial.user_attrs
        cells = [Text(str(known["settings"].get(key, "–"))) for key in keys]
        name = "params.yaml" if known.get("as_is") == search.present else str(known["name"])
        table.add_row(name, f"{trial.value:.4f}", str(known["epochs"]), *cells)
    return table


def _importance(study: "Study") -> str:
    """Return a line about what mattered most (PED-ANOVA, Watanabe et al. 2023), once there are trials enough."""
    if sum(trial.state.name == "COMPLETE" for trial in study.trials) < ENOUGH_TO_WEIGH:
        return ""
    from optuna.importance import get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = get_param_importances(study)
    return "importance  " + ", ".join(
        f"{key.removeprefix('finetune.')} {weight:.2f}" for key, weight in weights.items()
    )


def _write_best(search: Search, *, apply: bool) -> str:
    """Write params with the best trial's values, if they beat those that are there; return what was done."""
    best, now = _finished(search)[0], search.as_is()
    assert now is not None, "the search has run it first"
    search.runs.finish(
        {f"best_validation_{search.metric}": best.value or 0.0, "trials_complete": float(len(_finished(search)))}
    )
    if best.value == now.value:
        TUNED.unlink(missing_ok=True)
        return f"nothing beats params.yaml as it is ({search.metric} {now.value:.4f})"
    before = read_text()
    after = patched(before, best.user_attrs["settings"])
    title = f"trial {best.user_attrs['name']} beats params.yaml: {search.metric} {best.value:.4f}, not {now.value:.4f}"
    lines = [title, *difference(before, after)]
    if apply:
        write_params(after)
        TUNED.unlink(missing_ok=True)
        return "\n".join([*lines, "params.yaml has these values now: make run"])
    write_params(after, TUNED)
    return "\n".join([*lines, f"written to {TUNED}; to take it over: make tune ARGS=--apply"])


if __name__ == "__main__":
    sys.exit(main())
