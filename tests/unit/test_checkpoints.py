"""A training that is cut short anywhere goes on, and ends as if nothing had happened."""

import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import Trainer, TrainerCallback

from stages.common.errors import AttuneError
from stages.finetune import batches, training
from stages.finetune.checkpoints import COMPLETE, WEIGHTS, complete, discard_others, last_checkpoint, step_of
from stages.finetune.strategies import save
from stages.tasks.inference import load_classifier
from tests.models import KINDS, Cut, Scored, Splits, losses, result, settings, tokenized, trained, with_targets

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def splits(base: Path) -> Splits:
    return {"train": tokenized(base, 70, 0), "validation": tokenized(base, 32, 1)}  # 5 steps of 16 an epoch


def scores(values: list[float]) -> Any:
    """Validation scores that are given, one an epoch."""
    given = iter(values)
    return Scored(lambda: dict.fromkeys(("accuracy", "macro_f1"), next(given)))


PARTS = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8}
NO_BEST = {"train_on": "train_and_validation", "early_stopping_patience": None}
KNOBS: dict[str, dict[str, Any]] = {
    "every two steps": {"save_steps": 2},
    "accumulated": {**PARTS, "save_steps": 1, "max_tokens_per_batch": 80},
    "in any order, dropout, no best epoch": {**NO_BEST, "save_steps": 2, "group_by_length": False, "dropout": 0.3},
    "sgd": {"optim": "sgd", "momentum": 0.9, "learning_rate": 0.1, "l1": 0.01},
    "adafactor": {"optim": "adafactor", "layerwise_lr_decay": 0.7, "lr_scheduler_type": "cosine"},
    "adalora": {"save_steps": 2, "strategy": "adalora"},
    "adalora, ranks settled": {"save_steps": 2, "strategy": "adalora", "adalora": {"tfinal_ratio": 0.7}},
    "prefix": {"strategy": "prefix", "prefix": {"num_virtual_tokens": 4, "prefix_projection": True}},
}


def everything(run: Any, folder: Path) -> Any:
    return result(run, folder), {name: value.tolist() for name, value in run[0].named_parameters()}


@pytest.mark.parametrize("name", KNOBS)
def test_a_training_cut_short_at_any_step_ends_with_the_same_bytes(
    base: Path, splits: Splits, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PORTION", 2)
    whole = Cut()
    run = trained(base, splits, tmp_path / "whole", whole, **KNOBS[name])
    expected, last = everything(run, tmp_path / "expected"), whole.begun[-1]
    for before in (2, 6, last) if name == "every two steps" else (last * 3 // 4,):
        folder, second = tmp_path / f"cut{before}", Cut()
        with pytest.raises(KeyboardInterrupt):
            trained(base, splits, folder, Cut(before), **KNOBS[name])
        torch.manual_seed(before)  # as in another process
        run = trained(base, splits, folder, second, **KNOBS[name])
        assert everything(run, tmp_path / f"model{before}") == expected, f"cut at {before}"
        assert second.begun == list(range(second.begun[0], last + 1))
        since = before - KNOBS[name].get("save_steps", 5)  # the last checkpoint is not older
        assert max(1, since) <= second.begun[0] <= before


@pytest.mark.parametrize(("kind", "loss"), [("sets", "bce"), ("numbers", "mse")])
def test_sets_and_numbers_are_learned_cut_short_too_and_answered_in_units_of_the_data(
    base: Path, tmp_path: Path, kind: str, loss: str
) -> None:
    task, space, _ = KINDS[kind]
    few = tokenized(base, 16, 0, (0.4, 0.3, 0.3))
    splits = with_targets({"train": pl.concat([few] * 4), "validation": few}, kind)
    knobs = {"task": task, "space": space, "loss": loss, "metric_for_best_model": "loss", "strategy": "lora"}
    knobs |= {"learning_rate": 0.02, "bf16": False, "save_steps": 3}
    run = trained(base, splits, tmp_path / "whole", **knobs)
    measured = losses(run[1], "eval_loss")
    assert measured[-1] < measured[0]
    with pytest.raises(KeyboardInterrupt):
        trained(base, splits, tmp_path / "cut", Cut(8), **knobs)
    model, history = trained(base, splits, tmp_path / "cut", **knobs)
    assert losses(history, "eval_loss") == measured
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in run[0].named_parameters())
    tokens = torch.tensor([few["input_ids"][0].to_list()])
    with torch.inference_mode():
        inside = model.eval()(tokens).logits
        task.finished(model, space, tmp_path / "model")
        save(model, settings(strategy="lora"), tmp_path / "model")
        outputs = load_classifier(tmp_path / "model")(tokens).logits
    expected = inside * space["deviation"] + space["mean"] if kind == "numbers" else inside
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)


def test_helpers_that_load_batches_change_nothing(base: Path, splits: Splits, tmp_path: Path) -> None:
    knobs = {"save_steps": 2, "dropout": 0.2, "num_train_epochs": 2}
    whole = result(trained(base, splits, tmp_path / "whole", **knobs), tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        trained(base, splits, tmp_path / "cut", Cut(4), **knobs, dataloader_num_workers=2)
    again = trained(base, splits, tmp_path / "cut", **knobs, dataloader_num_workers=2)
    assert result(again, tmp_path / "resumed") == whole


@pytest.mark.parametrize("knobs", [{"gradient_accumulation_steps": 4, "save_steps": 1}, {"dataloader_num_workers": 1}])
def test_a_single_row_is_enough_to_train_on(base: Path, tmp_path: Path, knobs: dict[str, Any]) -> None:
    splits = {"train": tokenized(base, 1, 0), "validation": tokenized(base, 1, 1)}
    _, log = trained(base, splits, tmp_path, num_train_epochs=2, **knobs)
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [1, 2]


def test_a_training_that_had_stopped_early_does_not_begin_another_epoch(
    base: Path, splits: Splits, tmp_path: Path
) -> None:
    """The third epoch would be the best, if it were trained."""
    task, knobs = scores([0.9, 0.8, 0.99]), {"early_stopping_patience": 1, "num_train_epochs": 3}
    for _ in range(2):  # its checkpoint is still there, as if it had been cut short just afterwards
        _, history = trained(base, splits, tmp_path, task=task, **knobs)
        assert losses(history, "eval_accuracy") == [0.9, 0.8]


def test_a_resumed_training_remembers_its_patience(base: Path, splits: Splits, tmp_path: Path) -> None:
    """Two epochs without a better score end it, also when it was cut short between them."""
    task, knobs = scores([0.9, 0.8, 0.8, 0.8, 0.8]), {"num_train_epochs": 5, "early_stopping_patience": 2}
    with pytest.raises(KeyboardInterrupt):
        trained(base, splits, tmp_path, Cut(13), task=task, **knobs)  # in the third epoch
    _, history = trained(base, splits, tmp_path, task=task, **knobs)
    assert losses(history, "eval_accuracy") == [0.9, 0.8, 0.8]


def test_the_best_epoch_and_the_newest_checkpoint_are_there_and_no_others(
    base: Path, splits: Splits, tmp_path: Path
) -> None:
    kept: dict[int, list[int]] = {}

    class Folders(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            kept[state.global_step] = sorted(step_of(path.parent) for path in tmp_path.glob(f"*/{COMPLETE}"))

    task = scores([0.5, 0.9, 0.7])
    trained(base, splits, tmp_path, Folders(), task=task, save_steps=2, num_train_epochs=3)
    assert [kept[step] for step in (1, 2, 3, 4, 5)] == [[], [2], [2], [4], [5]]
    assert [kept[step] for step in (6, 8, 10, 12)] == [[5, 6], [5, 8], [10], [10, 12]]


def test_a_training_that_was_given_up_makes_room_but_for_the_latest(tmp_path: Path) -> None:
    for time, name in ((1.5, "old"), (1, "older"), (2, "latest"), (3, "own")):
        (tmp_path / name / "checkpoint-4").mkdir(parents=True)
        complete(tmp_path / name / "checkpoint-4", processes=0, best=None)
        os.utime(tmp_path / name, (time, time))
    discard_others(tmp_path / "own")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "own"]
    assert last_checkpoint(tmp_path / "latest") and not last_checkpoint(tmp_path / "older")


def test_nothing_in_a_checkpoint_can_run_code(base: Path, splits: Splits, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    with pytest.raises(KeyboardInterrupt):
        trained(base, splits, tmp_path / "run", Cut(7))
    for name in ("rng_state.pth", "optimizer.pt", "scheduler.pt", WEIGHTS):
        shutil.copytree(tmp_path / "run", tmp_path / name)
        torch.save(Evil(), (last_checkpoint(tmp_path / name) or tmp_path) / name)
        with pytest.raises(Exception, match=r"[Ww]eights"):
            trained(base, splits, tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_ends_the_training_which_goes_on_from_the_checkpoint_before(
    base: Path, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/dev/full` refuses every write."""
    expected = result(trained(base, splits, tmp_path / "whole"), tmp_path / "expected")
    original = Trainer._save_checkpoint

    def into_the_void(self: Any, model: Any, trial: Any) -> None:
        if self.state.global_step > 5:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            folder.mkdir()
            (folder / "optimizer.pt").symlink_to("/dev/full")
        original(self, model, trial)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_checkpoint", into_the_void)
        patched.setattr(training.shutil, "disk_usage", lambda _: Usage(2**40, 2**40, 0))
        with pytest.raises(AttuneError, match="no room for the checkpoint of step 10"):
            trained(base, splits, tmp_path / "full")
    assert last_checkpoint(tmp_path / "full") == tmp_path / "full" / "checkpoint-5"
    assert result(trained(base, splits, tmp_path / "full"), tmp_path / "model") == expected
