"""`python -m flows.tune`: search for better params of finetune with Optuna, and write the best as a params file.

A plain program rather than a Prefect flow: the study keeps all that is known of its trials and is taken up from there,
while Prefect's own server would take longer to start than many a trial to run.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from flows.command import program
from flows.search.params_patch import rewrite
from flows.search.study import Search
from stages.common.display import visible
from stages.common.errors import AttuneError
from stages.common.params import PARAMS_FILE, Params, check_params, read_yaml
from stages.common.pipeline.stage import alone

TUNED = Path("params.tuned.yaml")
OF_THE_LOSS = ("loss", "focal_gamma", "huber_delta", "label_smoothing_factor", "class_weights")
CHANGES_THE_LOSS = [f"finetune.{name}" for name in OF_THE_LOSS]


@program("the search was interrupted; the same command goes on with it")
def main(arguments: list[str] | None = None) -> None:
    """Search until there are as many trials as `tune.trials` says; show the best, and write them."""
    parser = argparse.ArgumentParser(prog="python -m flows.tune", description="Search for better params of finetune.")
    parser.add_argument("--apply", action="store_true", help="write the best into params.yaml")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    data = read_yaml(PARAMS_FILE)
    params = check_params(data)
    metric = checked_metric(params)
    with alone("trials"):
        search = Search(data, params, metric)
        score = search.run(lambda line: console.print(Text(visible(line))))
        console.print(Text(_write_best(search, score, apply=options.apply)))


def checked_metric(params: Params) -> str:
    """Return the metric that is searched for; an AttuneError if there is nothing to search, or to compare trials by."""
    metric = params.tune.metric or params.metric_for_best_model
    if not params.tune.space:
        raise AttuneError("params.yaml: tune.space is empty", "say what to search: docs/tuning.md has an example")
    if params.finetune.train_on != "train":
        what = f"params.yaml: finetune.train_on is {params.finetune.train_on}: no row is left to compare trials by"
        raise AttuneError(what, "set it to train while you search")
    if metric == "loss" and (searched := [name for name in CHANGES_THE_LOSS if name in params.tune.space]):
        what = f"params.yaml: tune.space holds {searched[0]}, which changes what the loss measures"
        raise AttuneError(what, f"set tune.metric: {params.spec.main.name}")
    return metric


def _write_best(search: Search, score: float, *, apply: bool) -> str:
    """Write params with the best trial's values, if they beat those that are there; return what was done."""
    states = [trial.state.name for trial in search.trials]
    done, pruned, failed = (states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL"))
    title = f"{done} trials finished, {pruned} pruned, {failed} failed"
    better = max if search.study.direction.name == "MAXIMIZE" else min
    best = search.study.best_trial if done else None
    value = score if best is None or best.value is None else better(score, best.value)
    search.runs.finish({f"best_validation_{search.metric}": value, "trials_complete": float(done)})
    if apply or value == score:
        TUNED.unlink(missing_ok=True)
    if best is None or value == score:
        return f"{title}; nothing beats params.yaml as it is ({search.metric} {score:.4f})"
    lines = rewrite(best.user_attrs["settings"], PARAMS_FILE if apply else TUNED)
    title += f"; the best has {search.metric} {value:.4f}, params.yaml {score:.4f}"
    end = "params.yaml has these values now: make run" if apply else f"written to {TUNED}: make tune ARGS=--apply"
    return "\n".join([title, *lines, end])


if __name__ == "__main__":
    sys.exit(main())
