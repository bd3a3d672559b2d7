"""The search space: what is accepted, what is refused with a reason, and what is drawn."""

from typing import Any

import optuna
import pytest

from flows.search.study import draw, seed_sampler, with_outcome
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params

WHOLE = {
    "ingest": {
        "sources": [{"path": "data/inbox/rows.csv", "columns": {"text": "text", "label": "label"}}],
        "base_model": {"scratch": {}},
    },
    "tokenize": {"max_length": 32},
    "register": {"model_name": "tests"},
}


def params_of(space: dict[str, Any], **finetune: Any) -> Params:
    return check_params({**WHOLE, "finetune": finetune, "tune": {"space": space}})


@pytest.mark.parametrize(
    ("key", "dimension", "message"),
    [
        ("finetune.learnin_rate", {"choices": [1e-4]}, "did you mean 'finetune.learning_rate'?"),
        ("finetune.zzz", {"choices": [1]}, "no such parameter of finetune"),
        ("tokenize.max_length", {"low": 16, "high": 64}, "a trial runs finetune alone, after tokenize"),
        ("finetune.train_on", {"choices": ["train"]}, "trials are compared by this"),
        ("finetune.learning_rate", {"low": 1e-5, "high": 3.0}, "less than or equal to 1, not 3.0"),
        ("finetune.learning_rate", {"choices": [1e-4, "fast"]}, "valid number, not 'fast'"),
        ("finetune.num_train_epochs", {"low": 1, "high": 2.5}, "valid integer, not 2.5"),
        ("finetune.num_train_epochs", {"low": 1, "high": 9, "step": 0.5}, "step cannot be 0.5"),
        ("finetune.strategy", {"choices": ["full", "lara"]}, "'lora'"),
        ("finetune.strategy", {"low": 1, "high": 2}, "not 1"),
        ("finetune.lora.r", {"choices": [0]}, "greater than or equal to 1, not 0"),
        ("finetune.learning_rate", {"low": 3e-4, "high": 2e-5}, "must be under high"),
        ("finetune.learning_rate", {"low": 1e-5}, "give low and high, or choices"),
        ("finetune.learning_rate", {"choices": [1e-4], "log": True}, "take them out"),
        ("finetune.weight_decay", {"low": 0.0, "high": 0.1, "log": True}, "log needs a low above 0"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_with_the_reason(
    key: str, dimension: dict[str, Any], message: str
) -> None:
    with pytest.raises(AttuneError) as refused:
        params_of({key: dimension})
    assert message in str(refused.value)
    assert f"tune.space.{key}" in str(refused.value)


def drawn(space: dict[str, Any], trials: int = 30, **finetune: Any) -> list[dict[str, Any]]:
    params = params_of(space, **finetune)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    found = []
    for _ in range(trials):
        trial = study.ask()
        found.append(draw(trial, params))
        study.tell(trial, 0.0)
    return found


def test_what_is_drawn_is_in_the_range_and_of_the_parameters_type() -> None:
    space = {
        "finetune.learning_rate": {"low": 2e-5, "high": 3e-4, "log": True},
        "finetune.num_train_epochs": {"low": 1, "high": 3},
        "finetune.weight_decay": {"low": 0.0, "high": 0.1, "step": 0.025},
        "finetune.optim": {"choices": ["adamw", "sgd"]},
        "finetune.dropout": {"choices": [None, 0.1]},
    }
    found = drawn(space)
    for settings in found:
        assert 2e-5 <= settings["finetune.learning_rate"] <= 3e-4
        assert float(f"{settings['finetune.learning_rate']:.3g}") == settings["finetune.learning_rate"]
        assert type(settings["finetune.num_train_epochs"]) is int
        assert settings["finetune.weight_decay"] in (0.0, 0.025, 0.05, 0.075, 0.1)
    assert {settings["finetune.num_train_epochs"] for settings in found} == {1, 2, 3}
    assert {settings["finetune.dropout"] for settings in found} == {None, 0.1}


def test_options_of_a_strategy_are_drawn_where_it_is_the_one() -> None:
    space = {"finetune.lora.r": {"choices": [4, 8]}, "finetune.strategy": {"choices": ["full", "lora"]}}
    for settings in drawn(space):
        assert ("finetune.lora.r" in settings) == (settings["finetune.strategy"] == "lora")
    assert all(not settings for settings in drawn({"finetune.lora.r": {"choices": [4]}}))
    assert all(settings for settings in drawn({"finetune.lora.r": {"choices": [4]}}, strategy="lora"))


def test_draws_depend_on_the_seed_and_the_outcomes_and_not_on_interruptions() -> None:
    def search(seed: int, interrupted: tuple[int, ...] = ()) -> list[float]:
        study, values = optuna.create_study(), []
        while len(with_outcome(study)) < 16:  # past the ten at random that TPE begins with
            seed_sampler(study, seed)
            trial = study.ask()
            value = trial.suggest_float("finetune.learning_rate", 1e-6, 1e-1, log=True)
            if len(study.trials) in interrupted:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                values.append(value)
                study.tell(trial, abs(value - 1e-3))
        return values

    assert search(13) == search(13, interrupted=(1, 2, 5, 14, 18))
    assert search(13) != search(14)
