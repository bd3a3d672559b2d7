"""Trials: their folders and names, what is drawn for them and read of them, and scores over folds."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from ruamel.yaml import YAML

from flows.crossvalidate import summarize
from flows.search import trials
from flows.search.study import draw
from flows.search.trials import TrialFailed, prepare_trial, train_trial
from flows.tune import checked_metric
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params
from stages.common.pipeline.stage import Run
from stages.tracking.live import NestedRuns
from tests.projects import PROJECT, Project


@pytest.fixture
def data(project: Project) -> Any:
    """The params of a project that holds all that finetune reads."""
    for name in ("train.parquet", "validation.parquet", "encoding.json"):
        project.file(f"data/tokenized/{name}", name)
    project.file("models/base/config.json", "{}")
    for code in ("finetune", "tasks"):
        project.file(f"stages/{code}/__init__.py", "")
    return YAML().load((project.root / "params.yaml").read_text())


def test_a_trial_is_named_after_its_inputs_as_the_stage_itself_computes_them(data: Any) -> None:
    from stages.common.pipeline.graph import read_graph

    trial = prepare_trial(data)
    run = Run(read_graph()["finetune"], trial.params.finetune, trial.params, Path("staging"))
    assert trial.digest == run.inputs_digest()
    assert trial.folder == Path(".attune/trials") / trial.digest[:16]
    other = prepare_trial({**data, "finetune": {"learning_rate": 1e-3}})
    assert other.digest != trial.digest
    assert prepare_trial({**data, "tracking": {"experiment_name": "other"}}).digest == trial.digest


def test_the_folder_holds_what_the_stage_reads_and_checked_params(data: Any, project: Project) -> None:
    given = project.file("elsewhere/train.parquet", "other rows")
    plain, trial = prepare_trial(data), prepare_trial(data, {"data/tokenized/train.parquet": given})
    assert trial.digest != plain.digest
    assert (trial.folder / "data/tokenized/train.parquet").read_text() == "other rows"
    assert (trial.folder / "data/tokenized/validation.parquet").read_text() == "validation.parquet"
    assert check_params(YAML().load((trial.folder / "params.yaml").read_text())) == trial.params
    assert (trial.folder / "dvc.yaml").read_bytes() == (PROJECT / "dvc.yaml").read_bytes()
    prepare_trial(data)  # once more, over what is there


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
    trial.curve.write_text(
        "step,epoch,validation_accuracy,validation_macro_f1,validation_loss\n"
        "5,1,0.9,0.6,0.5\n10,2,0.9,0.8,0.4\n15,3,0.7,0.8,0.4\n"
    )
    epochs, best = train_trial(trial, runs, "it")  # the project's finetune is empty: it could not train
    assert [epoch["step"] for epoch in epochs] == [5, 10, 15] and best["epoch"] == kept
    assert runs.ended == [("complete", {f"best_validation_{name}": best[name] for name in trials.SCORES})]


def test_a_training_that_stops_with_an_error_tells_its_last_lines(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    Path("stages/__init__.py").touch()
    runs = Runs()
    with pytest.raises(TrialFailed, match=r"(?s)training of fold 1 failed.*No module named 'stages\.common'"):
        train_trial(
            prepare_trial(data), runs, "fold 1"
        )  # the project's own stages/finetune is empty, and it is what runs
    assert runs.ended == [("failed", {})]


def test_lines_of_the_training_curve_and_half_lines_are_passed_over(data: Any) -> None:
    trial = prepare_trial(data)
    point = '{"step": 5, "epoch": 1.0, "validation_loss": 0.4, "validation_accuracy": 0.5, "validation_macro_f1": 0.6}'
    (trial.folder / trials.LIVE).write_text('{"step": 5, "epoch": 1.0, "loss": 0.3}\n' + point + "\n" + point[:30])
    assert trials._live(trial) == [{"step": 5, "epoch": 1.0, "loss": 0.4, "accuracy": 0.5, "macro_f1": 0.6}]


def test_the_interval_over_folds_allows_for_what_they_share() -> None:
    found = summarize([0.8, 0.9, 1.0], ratio=0.5, confidence=0.95)
    assert (found["mean"], found["sd"]) == (0.9, 0.1)
    half = 4.302653 * (1 / 3 + 0.5) ** 0.5 * 0.1  # t of 2 degrees of freedom; Nadeau & Bengio's factor
    assert (found["low"], found["high"]) == pytest.approx((0.9 - half, 0.9 + half), abs=1e-6)
    assert summarize([0.8, 0.9, 1.0], ratio=0.5, confidence=0.95, most=1.0)["high"] == 1.0


def drawn(data: Any, space: dict[str, Any], trials: int = 30, **finetune: Any) -> list[dict[str, Any]]:
    params = check_params({**data, "finetune": finetune, "tune": {"space": space}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    found = []
    for _ in range(trials):
        trial = study.ask()
        found.append(draw(trial, params))
        study.tell(trial, 0.0)
    return found


def test_what_is_drawn_is_in_the_range_and_of_the_parameters_type(data: Any) -> None:
    space = {
        "finetune.learning_rate": {"low": 2e-5, "high": 3e-4, "log": True},
        "finetune.num_train_epochs": {"low": 1, "high": 3},
        "finetune.weight_decay": {"low": 0.0, "high": 0.1, "step": 0.025},
        "finetune.optim": {"choices": ["adamw", "sgd"]},
        "finetune.dropout": {"choices": [None, 0.1]},
    }
    found = drawn(data, space)
    for settings in found:
        assert 2e-5 <= settings["finetune.learning_rate"] <= 3e-4
        assert float(f"{settings['finetune.learning_rate']:.3g}") == settings["finetune.learning_rate"]
        assert type(settings["finetune.num_train_epochs"]) is int
        assert settings["finetune.weight_decay"] in (0.0, 0.025, 0.05, 0.075, 0.1)
    assert {settings["finetune.num_train_epochs"] for settings in found} == {1, 2, 3}
    assert {settings["finetune.dropout"] for settings in found} == {None, 0.1}


def test_options_of_a_strategy_are_drawn_where_it_is_the_one(data: Any) -> None:
    space = {"finetune.lora.r": {"choices": [4, 8]}, "finetune.strategy": {"choices": ["full", "lora"]}}
    for settings in drawn(data, space):
        assert ("finetune.lora.r" in settings) == (settings["finetune.strategy"] == "lora")
    assert all(not settings for settings in drawn(data, {"finetune.lora.r": {"choices": [4]}}))
    assert all(settings for settings in drawn(data, {"finetune.lora.r": {"choices": [4]}}, strategy="lora"))


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
