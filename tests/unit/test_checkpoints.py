"""A training that is cut short anywhere goes on, and ends as if nothing had happened."""

import os
import shutil
from collections import namedtuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from small_training import make_base, result, tokenized, trained
from transformers import Trainer, TrainerCallback

from stages.common.errors import AttuneError
from stages.finetune import batches, resumable
from stages.finetune.checkpoints import discard_others, is_complete, last_checkpoint, mark_complete

Usage = namedtuple("Usage", "total used free")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def splits(base: Path) -> dict[str, pl.DataFrame]:
    return {"train": tokenized(base, 70, 0), "validation": tokenized(base, 32, 1)}  # 5 steps of 16 an epoch


class Cut(TrainerCallback):
    """End the training before a step, as if by a power cut."""

    def __init__(self, *before: int) -> None:
        self.before, self.seen = before, []

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step + 1 in self.before:
            raise KeyboardInterrupt
        self.seen.append(state.global_step + 1)


def cut_and_resumed(base: Path, splits: Any, folder: Path, before: int, **knobs: Any) -> tuple[Any, list[int]]:
    """Train up to a step, go on in what might be another process, return the run and the steps of its second part."""
    with pytest.raises(KeyboardInterrupt):
        trained(base, splits, folder, Cut(before), **knobs)
    torch.manual_seed(before)
    second = Cut()
    return trained(base, splits, folder, second, **knobs), second.seen


# ── the same bytes ──────────────────────────────────────────────────────────────────────────────────────────────────

KNOBS: dict[str, dict[str, Any]] = {
    "each epoch": {},
    "every two steps": {"save_steps": 2},
    "accumulated": {"save_steps": 1, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 8},
    "a budget of tokens": {"save_steps": 2, "max_tokens_per_batch": 80},
    "in any order, dropout, no best epoch": {
        "save_steps": 2,
        "group_by_length": False,
        "dropout": 0.3,
        "train_on": "train_and_validation",
        "early_stopping_patience": None,
    },
    "lora": {"save_steps": 2, "strategy": "lora"},
    "adalora": {"save_steps": 2, "strategy": "adalora"},
}


@pytest.mark.parametrize("name", KNOBS)
def test_a_training_cut_short_at_any_step_ends_with_the_same_bytes(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PORTION", 2)
    whole = Cut()
    expected = result(trained(base, splits, tmp_path / "whole", whole, **KNOBS[name]), tmp_path / "expected")
    last = whole.seen[-1]
    for before in (2, 6, 7, 11, last) if name == "every two steps" else (last * 3 // 4,):
        folder = tmp_path / f"cut{before}"
        run, steps = cut_and_resumed(base, splits, folder, before, **KNOBS[name])
        assert result(run, tmp_path / f"model{before}") == expected, f"cut before step {before}"
        since = before - KNOBS[name].get("save_steps", 5)  # the last checkpoint is not older
        assert steps == list(range(steps[0], last + 1))
        assert max(1, since) <= steps[0] <= before
        shutil.rmtree(folder)


def test_helpers_that_load_batches_change_nothing(base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    knobs = {"save_steps": 2, "dropout": 0.2, "num_train_epochs": 2}
    results = []
    for workers in (0, 1, 2):
        whole = trained(base, splits, tmp_path / f"whole{workers}", **knobs, dataloader_num_workers=workers)
        results.append(result(whole, tmp_path / f"model{workers}"))
    run, _ = cut_and_resumed(base, splits, tmp_path / "cut", 4, **knobs, dataloader_num_workers=2)
    results.append(result(run, tmp_path / "resumed"))
    assert len(set(results)) == 1


def test_epochs_of_different_numbers_of_batches_have_all_their_rows(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PORTION", 2)

    counts = dict.fromkeys(range(4), 0)

    class Rows(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            def count(module: Any, arguments: Any, inputs: Any) -> None:
                if module.training:
                    counts[int(state.epoch)] += len(inputs["input_ids"])

            given["model"].register_forward_pre_hook(count, with_kwargs=True)

    _, history = trained(base, splits, tmp_path, Rows(), max_tokens_per_batch=80, num_train_epochs=4)
    assert counts == dict.fromkeys(range(4), 70)
    epochs = [(entry["step"], entry["epoch"]) for entry in history if "eval_loss" in entry]
    assert [epoch for _, epoch in epochs] == [1.0, 2.0, 3.0, 4.0]
    assert len({after - before for (before, _), (after, _) in pairwise([(0, 0), *epochs])}) > 1  # or nothing is shown


def test_a_training_that_had_stopped_early_does_not_begin_another_epoch(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    """The last epoch would be the best, if it were trained."""
    scores = iter([0.9, 0.8, 0.99, 0.99])

    def metrics(_: Any) -> dict[str, float]:
        score = next(scores)
        return {"accuracy": score, "macro_f1": score}

    class CutAfterwards(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.epoch == 2:
                raise KeyboardInterrupt

    knobs = {"early_stopping_patience": 1, "num_train_epochs": 4}
    with pytest.raises(KeyboardInterrupt):
        trained(base, splits, tmp_path, CutAfterwards(), metrics=metrics, **knobs)
    _, history = trained(base, splits, tmp_path, metrics=metrics, **knobs)
    assert [entry["eval_accuracy"] for entry in history if "eval_loss" in entry] == [0.9, 0.8]


# ── which checkpoints there are ─────────────────────────────────────────────────────────────────────────────────────


class Folders(TrainerCallback):
    """Note the complete checkpoints at each step."""

    def __init__(self) -> None:
        self.at: dict[int, list[int]] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        found = [path for path in Path(args.output_dir).glob("checkpoint-*") if is_complete(path)]
        self.at[state.global_step] = sorted(int(path.name.split("-")[1]) for path in found)


def test_the_best_epoch_and_the_newest_checkpoint_are_there_and_no_others(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    scores = iter([0.5, 0.9, 0.7, 0.8])
    folders = Folders()
    trained(
        base,
        splits,
        tmp_path,
        folders,
        metrics=lambda _: dict.fromkeys(("accuracy", "macro_f1"), next(scores)),
        save_steps=2,
        num_train_epochs=4,
    )
    assert [folders.at[step] for step in (1, 2, 3, 4, 5)] == [[], [2], [2], [4], [5]]
    assert [folders.at[step] for step in (6, 8, 10, 12)] == [[5, 6], [5, 8], [10], [10, 12]]
    assert folders.at[19] == [10, 18]


def test_the_checkpoint_at_the_end_of_an_epoch_is_written_once_and_knows_of_its_validation(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    saved = []

    class Note(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            validated = [entry["step"] for entry in state.log_history if "eval_loss" in entry]
            saved.append((state.global_step, len(validated)))

    trained(base, splits, tmp_path, Note(), save_steps=1, num_train_epochs=2)
    assert saved == [(step, step // 5) for step in range(1, 11)]


def test_no_older_checkpoint_is_removed_before_the_newer_is_complete(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = result(trained(base, splits, tmp_path / "whole", save_steps=2), tmp_path / "expected")
    for name in ("_save_optimizer_and_scheduler", "_save_rng_state"):
        original = getattr(Trainer, name)

        def cut(self: Any, folder: str, original: Any = original) -> None:
            if self.state.global_step == 8:
                raise KeyboardInterrupt
            original(self, folder)

        with monkeypatch.context() as patched:
            patched.setattr(Trainer, name, cut)
            with pytest.raises(KeyboardInterrupt):
                trained(base, splits, tmp_path / name, save_steps=2)
        assert (tmp_path / name / "checkpoint-8").exists()
        assert Path(last_checkpoint(tmp_path / name) or "").name == "checkpoint-6"
        again = Cut()
        run = trained(base, splits, tmp_path / name, again, save_steps=2)
        assert result(run, tmp_path / f"{name}-model") == expected
        assert again.seen[0] == 7


def complete(folder: Path, step: int, best: str | None = None) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_text("weights")
    (checkpoint / "trainer_state.json").write_text("{}")
    mark_complete(checkpoint, best)
    return checkpoint


def test_the_newest_complete_checkpoint_is_continued(tmp_path: Path) -> None:
    for step in (9, 10):
        complete(tmp_path, step)
    (tmp_path / "checkpoint-11").mkdir()
    (tmp_path / "checkpoint-11" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_a_checkpoint_without_that_of_its_best_epoch_is_not_continued(tmp_path: Path) -> None:
    best = complete(tmp_path, 4)
    complete(tmp_path, 8, best="checkpoint-4")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")
    (best / "complete.json").unlink()
    assert last_checkpoint(tmp_path) is None


def test_a_training_that_was_given_up_makes_room_but_for_the_latest(tmp_path: Path) -> None:
    for at, name in enumerate(["old", "older", "latest", "own"]):
        complete(tmp_path / name, 4)
        os.utime(tmp_path / name, (at + (at == 0) * 1.5, at + (at == 0) * 1.5))
    discard_others(tmp_path / "own")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "own"]


def test_nothing_in_a_checkpoint_can_run_code(base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    for name in ("rng_state.pth", "optimizer.pt", "scheduler.pt"):
        folder = tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            trained(base, splits, folder, Cut(7))
        last = Path(last_checkpoint(folder) or "")
        torch.save(Evil(), last / name)
        mark_complete(last, None)
        with pytest.raises(Exception, match=r"[Ww]eights"):
            trained(base, splits, folder)
    assert not (tmp_path / "ran").exists()


# ── the disk ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_ends_the_training_which_goes_on_from_the_checkpoint_before(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        patched.setattr(resumable.shutil, "disk_usage", lambda _: Usage(2**40, 2**40, 0))
        with pytest.raises(AttuneError, match="no room for the checkpoint of step 10"):
            trained(base, splits, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["checkpoint-5"]
    assert result(trained(base, splits, tmp_path / "full"), tmp_path / "model") == expected
