"""How fast does a language model learn answers, against Hugging Face's Trainer and TRL?

    cp recipes/chat.yaml params.yaml && dvc repro tokenize   # with ingest.limit: 3000, so that no row comes twice
    pip install -r benchmarks/requirements.txt         # TRL, into a virtual environment of its own
    python benchmarks/sft.py [--updates 60] [--rows 4] [--longest 96] [--python .trl/bin/python] [--arms lora …]

All arms train SmolLM2 (models/base) on the same rows of data/tokenized, in the same order of epochs, so many rows an
update, with AdamW and the same falling learning rate:

- hf-fp32, hf-bf16: `Trainer` as it comes, batches padded to their longest;
- trl, trl-lora: `SFTTrainer` with its defaults, and with peft's LoRA on all linear layers;
- full, lora: `stages.finetune`.

A processor without bfloat16 takes minutes for an update of `hf-bf16` and of TRL's defaults: there, `--float32` has TRL
train in float32 too.

Each is a process of its own, and they take turns of a few updates, so that a busy moment slows all of them. Counted
are wall and CPU time of the updates (without the first turn, which warms up), and tokens without padding. The loss is
that of the validation rows, computed by the same function in float32 for all. On a GPU there is the share of it
as well (MFU): 6 · weights · tokens (Kaplan et al. 2020, section 2.1) over the measured rate of bfloat16 products; and
batches of `full` and `lora` are packed there.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
ARMS = ("hf-bf16", "hf-fp32", "trl", "trl-lora", "full", "lora")
RIVALS = {"full": ("hf-bf16", "trl"), "lora": ("trl-lora",)}
SEED, TURN = 13, 10  # updates of a turn
RATE = {"lora": 1e-3, "trl-lora": 1e-3}  # of the others 1e-4
READY, DONE = "ready", "done"


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--updates", type=int, default=60)
    options.add_argument("--rows", type=int, default=4, help="of an update")
    options.add_argument("--longest", type=int, default=96, help="tokens of the longest row that is taken")
    options.add_argument("--float32", action="store_true", help="TRL without bfloat16")
    options.add_argument("--python", default=sys.executable, help="that has TRL")
    options.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    options.add_argument("--alone", choices=ARMS, help=argparse.SUPPRESS)
    asked = options.parse_args()
    os.chdir(PROJECT)
    if asked.alone:
        os.environ["SFT_FLOAT32"] = "1" * asked.float32
        print(json.dumps({DONE: train(asked.alone, asked.updates, asked.rows, asked.longest)}), flush=True)
        return
    given = [
        *["--float32"] * asked.float32,
        "--updates",
        str(asked.updates),
        "--rows",
        str(asked.rows),
        "--longest",
        str(asked.longest),
    ]
    pythons = {name: asked.python if name.startswith("trl") else sys.executable for name in asked.arms}
    started = {name: begin(python, name, given) for name, python in pythons.items()}
    results: dict[str, dict[str, Any]] = {}
    while len(results) < len(started):
        for name, process in started.items():
            if name not in results:
                assert process.stdin and process.stdout
                process.stdin.write("\n")
                process.stdin.flush()
                for line in process.stdout:
                    said = json.loads(line) if line.startswith('{"') else {}
                    if DONE in said:
                        results[name] = said[DONE]
                    if said:
                        print(f"{name}: {line.strip()[:200]}", file=sys.stderr, flush=True)
                        break
                else:
                    raise SystemExit(f"{name} ended without a result")
    report(results)


def begin(python: str, name: str, given: list[str]) -> "subprocess.Popen[str]":
    """Start an arm, which waits for its turn."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [python, __file__, "--alone", name, *given]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def turns(base: Any) -> Any:
    """Make a callback that waits for a line before each turn, and counts no seconds of the others' turns."""

    class Turns(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.wall, self.cpu, self.updates = [0.0], [0.0], 0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self._wait()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.wall[-1] += time.perf_counter() - self._at[0]
            self.cpu[-1] += time.process_time() - self._at[1]
            self.updates = state.global_step
            if state.global_step % TURN == 0 and state.global_step < state.max_steps:
                print(json.dumps({READY: state.global_step}), flush=True)
                self.wall.append(0.0)
                self.cpu.append(0.0)
                self._wait()
            self._at = time.perf_counter(), time.process_time()

        def _wait(self) -> None:
            sys.stdin.readline()
            self._at = time.perf_counter(), time.process_time()

    return Turns()


def train(name: str, updates: int, size: int, longest: int) -> dict[str, Any]:
    """Train one arm; return its times, memory and validation loss."""
    import polars as pl
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    splits = {
        split: pl.read_parquet(f"data/tokenized/{split}.parquet").filter(pl.col("length") <= longest)
        for split in ("train", "validation", "test")
    }
    validation = pl.concat([splits["validation"], splits["test"]]).head(32)
    train, count = splits["train"], updates * size
    draw = train.sample(count, seed=SEED, with_replacement=train.height < count, shuffle=True)
    rows = draw.with_columns(id=pl.int_range(pl.len()).cast(pl.String))
    clock = turns(transformers.TrainerCallback)
    with tempfile.TemporaryDirectory() as folder:
        arm = ours if name in RIVALS else theirs
        model = arm(name, rows, validation, size, Path(folder), clock)
    gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    counted = rows["length"][TURN * size : clock.updates * size].sum()
    matrices = sum(part.weight.numel() for part in model.modules() if isinstance(part, torch.nn.Linear))
    wall, cpu = sum(clock.wall[1:]), sum(clock.cpu[1:])
    return {
        "updates": clock.updates,
        "tokens": counted,
        "tokens_per_second": counted / wall,
        "tokens_per_cpu_second": counted / cpu,
        "peak_gib": peak / 2**30,
        "loss": loss_of(model, validation),
        "mfu": 6 * matrices * counted / wall / rate(torch) if gpu else None,
        "how": torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} CPU threads",
    }


def ours(name: str, rows: Any, validation: Any, size: int, folder: Path, clock: Any) -> Any:
    """Train as the stage does."""
    from transformers import AutoTokenizer

    from stages.common.params import FinetuneParams
    from stages.common.params.tasks import task_spec
    from stages.finetune.strategies import prepare
    from stages.finetune.training import train, training_arguments
    from stages.tasks.causal_lm import TASK

    params = FinetuneParams(
        strategy=name,
        num_train_epochs=1,
        learning_rate=RATE.get(name, 1e-4),
        warmup_ratio=0.0,
        weight_decay=0.0,
        per_device_train_batch_size=size,
        train_on="train",
        early_stopping_patience=None,
    )
    base, space = Path("models/base"), json.loads(Path("data/tokenized/encoding.json").read_text())
    model = prepare(TASK.build_model(base, space, params, SEED), params, space["max_length"], TASK.adapts)
    spec = task_spec(TASK.name)
    arguments = training_arguments(params, folder, SEED, rows.height, spec.main)
    arguments.eval_strategy = arguments.save_strategy = "no"
    arguments.load_best_model_at_end = False
    splits = {"train": rows, "validation": validation}
    train(model, AutoTokenizer.from_pretrained(base), splits, TASK, space, params, arguments, [clock])
    return model


def theirs(name: str, rows: Any, validation: Any, size: int, folder: Path, clock: Any) -> Any:
    """Train with `Trainer` or `SFTTrainer` as they come."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained("models/base")
    common: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": 1,
        "per_device_train_batch_size": size,
        "learning_rate": RATE.get(name, 1e-4),
        "weight_decay": 0.0,
        "seed": SEED,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }
    model = AutoModelForCausalLM.from_pretrained("models/base", dtype=torch.float32)
    if name.startswith("trl"):
        from peft import LoraConfig
        from trl import SFTConfig, SFTTrainer

        precision = {"bf16": False} if os.environ["SFT_FLOAT32"] else {}

        table = Dataset.from_list(
            [
                {"input_ids": row["input_ids"], "completion_mask": [int(mark) for mark in row["labels"]]}
                for row in rows.select("input_ids", "labels").to_dicts()
            ]
        )
        adapter = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer: Any = SFTTrainer(
            model=model,
            args=SFTConfig(**common, max_length=None, completion_only_loss=True, **precision),
            train_dataset=table,
            processing_class=tokenizer,
            peft_config=adapter if name == "trl-lora" else None,
            callbacks=[clock],
        )
    else:
        table = Dataset.from_list(
            [
                {
                    "input_ids": row["input_ids"],
                    "attention_mask": [1] * len(row["input_ids"]),
                    "labels": [
                        token if mark else -100 for token, mark in zip(row["input_ids"], row["labels"], strict=True)
                    ],
                }
                for row in rows.select("input_ids", "labels").to_dicts()
            ]
        )
        trainer = Trainer(
            model=model,
            args=TrainingArguments(**common, bf16=name == "hf-bf16"),
            train_dataset=table,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            callbacks=[clock],
        )
    trainer.remove_callback(PrinterCallback)  # what it prints would be taken for a result
    trainer.train()
    return trainer.model


def loss_of(model: Any, rows: Any) -> float:
    """Return the mean loss of a learnt token, in float32, row by row."""
    import torch

    model = model.float().eval()
    total = count = 0.0
    device = next(model.parameters()).device
    for row in rows.select("input_ids", "labels").to_dicts():
        ids = torch.tensor([row["input_ids"]], device=device)
        learnt = torch.tensor(row["labels"], device=device)[1:].bool()
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1][learnt].float()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:][learnt], reduction="sum").item()
        count += int(learnt.sum())
    return total / count


def rate(torch: Any) -> float:
    """Return the FLOP/s of this GPU in bfloat16 products, the best of three tries."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    found = []
    for _ in range(4):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(20):
            left @ right
        torch.cuda.synchronize()
        found.append(20 * 2 * 8192**3 / (time.perf_counter() - started))
    return max(found[1:])


def report(results: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    print(f"\n{next(iter(results.values()))['how']}; {next(iter(results.values()))['updates']} updates\n")
    print("| | tokens/s | tokens per CPU second | peak memory | validation loss | MFU | × by wall | × by CPU |")
    print("|---" * 8 + "|")
    for name, run in results.items():
        rivals = [rival for rival in RIVALS.get(name, ()) if rival in results]
        ratios = [
            ", ".join(f"{run[key] / results[rival][key]:.2f} {rival}" for rival in rivals) or "–"
            for key in ("tokens_per_second", "tokens_per_cpu_second")
        ]
        speed = f"{run['tokens_per_second']:.1f} | {run['tokens_per_cpu_second']:.1f}"
        mfu = f"{run['mfu']:.1%}" if run["mfu"] else "–"
        print(
            f"| {name} | {speed} | {run['peak_gib']:.2f} GiB | {run['loss']:.4f} | {mfu} | {ratios[0]} | {ratios[1]} |"
        )


if __name__ == "__main__":
    main()
