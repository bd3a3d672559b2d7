"""What makes a training fast on a CPU does not change what it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from stages.common.params.tasks import task_spec
from stages.finetune.cpu_speed import FastDropout, drop, fast_on_cpu, trimmed_vocabulary
from stages.finetune.training import train, training_arguments
from stages.tasks.text_classification import TASK
from tests.models import LABELS, settings, tiny_config, tokenized

ATTENDING = ["bert", "roberta", "albert", "distilbert", "modernbert"]
OTHERS = ["deberta-v2", "mpnet", "gpt2"]  # attention of their own, or a causal one: left as it is


def tiny(kind: str, rate: float = 0.0) -> PreTrainedModel:
    """A model of this kind with random weights; `rate` of dropout, wherever it has one."""
    torch.manual_seed(0)
    config = tiny_config(kind, num_labels=3)
    for name in vars(config):
        if "dropout" in name or "pdrop" in name:
            setattr(config, name, rate)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():  # so that attention and head matter from the start
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.3)
    return model


def batch(rows: int = 6, length: int = 9) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 60, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):  # the first row is whole
        ids[row, length - row :], mask[row, length - row :] = 1, 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(rows) % 3}


def gradients(model: PreTrainedModel, **given: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.train()
    model.zero_grad()
    loss = model(**given).loss
    loss.backward()
    return loss.detach(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("kind", [*ATTENDING, *OTHERS])
def test_loss_and_gradients_are_those_of_the_plain_model(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = tiny(kind), batch()
    expected, plain = gradients(model, **given)
    rates: list[float] = []
    monkeypatch.setattr("stages.finetune.cpu_speed.drop", lambda x, rate: rates.append(rate) or x)
    with fast_on_cpu(model):
        loss, fast = gradients(model, **given, num_items_in_batch=torch.tensor(6))  # as Trainer passes it on
    assert kind in OTHERS or len([rate for rate in rates if rate == 0.0]) >= 2  # used, once a layer
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert fast.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(fast[name], plain[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_model_is_as_before_afterwards() -> None:
    model = tiny("bert", rate=0.1)
    before = (model.config._attn_implementation, [type(part) for part in model.modules()])
    with pytest.raises(KeyError), fast_on_cpu(model):
        assert any(isinstance(part, FastDropout) for part in model.modules())
        raise KeyError
    assert (model.config._attn_implementation, [type(part) for part in model.modules()]) == before


@pytest.mark.parametrize(("rate", "dtype"), [(0.1, torch.float32), (0.5, torch.bfloat16), (0.9, torch.float32)])
def test_so_many_are_dropped_and_the_rest_is_scaled_up(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 999, dtype=dtype, requires_grad=True)
    kept = drop(x, rate)
    kept.sum().backward()
    assert torch.equal(x.grad, kept.detach())  # what is dropped gets no gradient, and the rest the scale
    share = (kept == 0).float().mean().item()
    assert abs(share - rate) < 4 * (rate * (1 - rate) / kept.numel()) ** 0.5 + 2**-16
    scale = torch.tensor(1 / (1 - round(rate * 65536) / 65536)).to(dtype)
    assert torch.equal(kept[kept != 0].unique(), scale.reshape(1))


def test_neighbours_are_dropped_independently() -> None:
    """The numbers are quarters of random words: no quarter may know of another."""
    torch.manual_seed(0)
    dropped = (drop(torch.ones(400_000), 0.5) == 0).double()
    for gap in (1, 2, 3, 4, 5, 8):
        correlation = torch.corrcoef(torch.stack([dropped[:-gap], dropped[gap:]]))[0, 1].abs().item()
        assert correlation < 4 / 400_000**0.5
    for place in range(4):
        assert abs(dropped[place::4].mean().item() - 0.5) < 4 * 0.5 / 100_000**0.5


def steps(model: PreTrainedModel, given: dict[str, torch.Tensor]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(4):
        gradients(model, **given)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2", "modernbert"])
def test_a_cut_vocabulary_learns_what_the_whole_one_does(kind: str) -> None:
    given = batch()
    whole, cut = tiny(kind), tiny(kind)
    start = whole.get_input_embeddings().weight.detach().clone()
    steps(whole, given)
    used = given["input_ids"].unique()
    names = list(cut.state_dict())
    with trimmed_vocabulary(cut, used):
        assert list(cut.state_dict()) == names
        assert len(cut.get_input_embeddings().weight) < 60
        steps(cut, given)
    for (name, expected), weights in zip(whole.named_parameters(), cut.parameters(), strict=True):
        rows = used if expected is whole.get_input_embeddings().weight else ...
        torch.testing.assert_close(weights[rows], expected[rows], rtol=1e-4, atol=1e-5, msg=name)
    others = torch.tensor([token for token in range(60) if token not in set(used.tolist())])
    assert torch.equal(cut.get_input_embeddings().weight[others], start[others])


def test_padding_is_among_the_rows_of_a_model_that_knows_of_no_padding_token(base: Path, tmp_path: Path) -> None:
    """GPT-2's embedding has no `padding_idx`, but batches are padded all the same."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = AutoConfig.for_model("gpt2", vocab_size=200, n_embd=16, n_layer=1, n_head=2, num_labels=2)
    config.pad_token_id = tokenizer.pad_token_id
    model = AutoModelForSequenceClassification.from_config(config)
    splits = {"train": tokenized(base, 40, 0), "validation": tokenized(base, 20, 1)}
    params = settings(num_train_epochs=1)
    arguments = training_arguments(params, tmp_path / "run", 13, 40, task_spec(TASK.name).main)
    history = train(model, tokenizer, splits, TASK, {"labels": LABELS}, params, arguments, [])
    assert any("eval_loss" in entry for entry in history)


def test_what_was_learned_is_kept_when_the_training_breaks_off() -> None:
    model: Any = tiny("bert")
    with pytest.raises(IndexError), trimmed_vocabulary(model, torch.tensor([5, 4])):
        model.get_input_embeddings().weight.data.fill_(7.0)
        model(input_ids=torch.tensor([[5, 30]]))  # a token that was cut off is an error
    assert torch.equal(model.get_input_embeddings().weight[5], torch.full((16,), 7.0))
