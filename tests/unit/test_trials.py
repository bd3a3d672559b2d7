"""Trials: their folders and names, what is suggested for them and read of them, and scores over folds."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from ruamel.yaml import YAML

from flows.crossvalidate import summarize
from flows.search.study import suggest_settings
from flows.search.trials import prepare_trial, train_trial
from flows.tune import checked_metric
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params
from stages.common.pipeline.graph import read_graph
from stages.common.pipeline.stage import Run
from stages.tracking.live import NestedRuns
from tests.projects import Project


@pytest.fixture
def data(project: Project) -> Any:
    """The params of a project that holds all that finetune reads."""
    for name in ("train.parquet", "validation.parquet", "encoding.json"):
        project.file(f"data/tokenized/{name}", name)
    project.file("models/base/config.json", "{}")
    for code in (dep for dep in read_graph()["finetune"].deps if dep.startswith("stages/")):
        project.file(code if Path(code).suffix else f"{code}/code", "")
    return YAML().load((project.root / "params.yaml").read_text())


def test_a_trial_is_named_after_its_inputs_as_the_stage_itself_computes_them(data: Any, project: Project) -> None:
    trial = prepare_trial(data)
    run = Run(read_graph()["finetune"], trial.params.finetune, trial.params, Path("staging"))
    assert trial.digest == run.inputs_digest()
    assert trial.folder == Path(".attune/trials") / trial.digest[:16]
    assert check_params(YAML().load((trial.folder / "params.yaml").read_text())) == trial.params
    assert prepare_trial({**data, "finetune": {"learning_rate": 1e-3}}).digest != trial.digest
    assert prepare_trial({**data, "tracking": {"experiment_name": "other"}}).digest == trial.digest

    other = prepare_trial(data, {"data/tokenized/train.parquet": project.file("train.parquet", "other rows")})
    assert other.digest != trial.digest
    assert (other.folder / "data/tokenized/train.parquet").read_text() == "other rows"
    assert (other.folder / "data/tokenized/validation.parquet").read_text() == "validation.parquet"


class Runs(NestedRuns):
    """Keeps what would go to MLflow."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, dict[str, float]]] = []

    def begin(self, params: Params, key: str, name: str) -> str:
        return ""

    def end(self, run_id: str, state: str, reason: str, curve: Path, scores: dict[str, float]) -> None:
        self.ended.append((state, scores))


@pytest.mark.parametrize(("metric", "kept"), [("loss", 2), ("accuracy", 1), ("macro_f1", 2)])
def test_a_finished_trial_is_read_and_its_first_best_epoch_kept(data: Any, metric: str, kept: int) -> None:
    trial, runs = prepare_trial({**data, "finetune": {"metric_for_best_model": metric}}), Runs()
    trial.curve.parent.mkdir(parents=True)
    scores = {"accuracy": (0.9, 0.9, 0.7), "macro_f1": (0.6, 0.8, 0.8), "loss": (0.5, 0.4, 0.4)}
    rows = [f"{5 * epoch},{epoch},{name},{scores[name][epoch - 1]}\n" for epoch in (1, 2, 3) for name in scores]
    trial.curve.write_text("step,epoch,name,value\n" + "".join(rows))
    epochs, best = train_trial(trial, runs, "it")  # the project's finetune is empty: it could not train
    assert [epoch["step"] for epoch in epochs] == [5, 10, 15] and best["epoch"] == kept
    assert runs.ended == [("complete", {f"best_validation_{name}": best[name] for name in scores})]


def test_the_interval_over_folds_allows_for_what_they_share() -> None:
    summary = summarize([0.8, 0.9, 1.0], ratio=0.5, confidence=0.95)
    assert (summary["mean"], summary["sd"]) == (0.9, 0.1)
    half = 4.302653 * (1 / 3 + 0.5) ** 0.5 * 0.1  # t of 2 degrees of freedom; Nadeau & Bengio's factor
    assert (summary["low"], summary["high"]) == pytest.approx((0.9 - half, 0.9 + half), abs=1e-6)
    assert summarize([0.8, 0.9, 1.0], ratio=0.5, confidence=0.95, most=1.0)["high"] == 1.0


def suggested(data: Any, space: dict[str, Any], **finetune: Any) -> list[dict[str, Any]]:
    params = check_params({**data, "finetune": finetune, "tune": {"space": space}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [suggest_settings(study.ask(), params) for _ in range(30)]


def test_what_is_suggested_is_in_the_range_and_of_the_parameters_type(data: Any) -> None:
    space = {
        "finetune.learning_rate": {"low": 2e-5, "high": 3e-4, "log": True},
        "finetune.num_train_epochs": {"low": 1, "high": 3},
        "finetune.weight_decay": {"low": 0.0, "high": 0.1, "step": 0.025},
        "finetune.dropout": {"choices": [None, 0.1]},
    }
    rates, epochs, decays, dropouts = ({settings[key] for settings in suggested(data, space)} for key in space)
    assert all(2e-5 <= rate <= 3e-4 and float(f"{rate:.3g}") == rate for rate in rates)
    assert epochs == {1, 2, 3} and {type(number) for number in epochs} == {int}
    assert decays == {0.0, 0.025, 0.05, 0.075, 0.1} and dropouts == {None, 0.1}


def test_options_of_a_strategy_are_suggested_where_it_is_the_one(data: Any) -> None:
    space = {"finetune.lora.r": {"choices": [4, 8]}, "finetune.strategy": {"choices": ["full", "lora"]}}
    for settings in suggested(data, space):
        assert ("finetune.lora.r" in settings) == (settings["finetune.strategy"] == "lora")
    assert not any(suggested(data, {"finetune.lora.r": {"choices": [4]}}))
    assert all(suggested(data, {"finetune.lora.r": {"choices": [4]}}, strategy="lora"))


RATES = {"finetune.learning_rate": {"choices": [1e-3]}}
SMOOTH = {"finetune.label_smoothing_factor": {"choices": [0.0, 0.2]}}


@pytest.mark.parametrize(
    ("tune", "finetune", "message"),
    [
        ({}, {}, r"tune\.space is empty"),
        ({"space": RATES}, {"train_on": "train_and_validation", "early_stopping_patience": None}, "no row is left"),
        ({"space": SMOOTH, "metric": "loss"}, {}, "changes what the loss measures"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(data: Any, tune: Any, finetune: Any, message: str) -> None:
    with pytest.raises(AttuneError, match=message):
        checked_metric(check_params({**data, "finetune": finetune, "tune": tune}))
