"""What a training will take is known before its first step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.common.params import FinetuneParams
from stages.finetune.memory import needed, plan
from stages.finetune.strategies import prepare
from stages.tasks.causal_lm import TASK
from tests.chats import make_language_model, network

ROW = {"input_ids": list(range(3, 63)), "labels": [0] * 40 + [1] * 20}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_language_model(tmp_path / "base")


def batch(base: Path) -> dict[str, Any]:
    from transformers import AutoTokenizer

    return TASK.collator(AutoTokenizer.from_pretrained(base))([ROW])


def test_the_need_grows_with_rows_and_with_what_is_trained(base: Path) -> None:
    full, adapted = FinetuneParams(), FinetuneParams(strategy="lora")
    model = network(base)
    one, eight = (needed(model, batch(base), rows, full) for rows in (1, 8))
    size = sum(value.numel() for value in model.parameters())
    assert one.weights == 4 * size and one.training == 12 * size
    assert eight.activations == 8 * one.activations > 8 * 60 * 16 * 4 * 10  # more than a few states of each token
    lora = needed(prepare(network(base), adapted, 64, TASK.adapts), batch(base), 1, adapted)
    assert lora.training < one.training / 2
    assert needed(network(base), batch(base), 1, FinetuneParams(optim="adafactor")).training == 4 * size


def test_activations_are_computed_twice_where_they_would_not_fit_and_it_is_said(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, row = network(base), batch(base)
    state = torch.get_rng_state()
    need = needed(model, row, 8, FinetuneParams())
    for room, setting, expected, said in (
        (10 * need.total, "auto", False, ""),
        (need.weights + need.training // 2 + need.activations, "auto", True, "would not fit otherwise"),
        (10 * need.total, True, True, "as set"),
        (need.weights, False, False, "halve finetune.per_device_train_batch_size"),
        (need.weights, "auto", True, "halve finetune.per_device_train_batch_size"),
    ):
        params = FinetuneParams(gradient_checkpointing=setting)
        assert plan(model, row, 8, params, lambda room=room: room - need.weights) is expected
        assert said in capsys.readouterr().out
    assert torch.equal(torch.get_rng_state(), state), "no random number is used up"
