"""How fast does a model train, against the usual tutorial and a stock Hugging Face script?

    dvc repro tokenize && python benchmarks/finetune.py [--rows 2000] [--epochs 3] [--repeat 3] [--contenders attune …]

Trains on the same rows, each contender in a process of its own, in turns, and prints one table (medians and spread):

- tutorial: every text padded to 128 tokens, batches of 16, float32, a constant learning rate of 2e-5;
- stock: `Trainer` as it comes: batches of 16 padded to their longest, float32, AdamW, linear decay from 2e-5;
- attune: `stages.finetune` with params.yaml as it is here; `attune,dropout=0,strategy=head` is the same with other
  params of its section, to see what a setting costs and gains.

Time is that of the training steps alone, without scoring. Tokens are those of the texts, without padding. The share of
the machine is 6 · weights · tokens (forward and backward of the matrix products; Kaplan et al. 2020, section 2.1) over
the rate at which this machine multiplies matrices of the same shape and number format, measured in the same process; on
a GPU that is the model FLOPs utilisation (MFU) against the measured peak.
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
from statistics import median
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
CONTENDERS = ("tutorial", "stock", "attune")
SEED, LENGTH = 13, 128


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=2000, help="training rows, drawn by seed; 0: all")
    options.add_argument("--epochs", type=int, default=3, help="passes over them")
    options.add_argument("--repeat", type=int, default=3, help="turns")
    options.add_argument("--contenders", nargs="+", default=CONTENDERS, help="of these, or attune,KEY=VALUE,…")
    options.add_argument("--alone", help=argparse.SUPPRESS)
    asked = options.parse_args()
    os.chdir(PROJECT)
    if asked.alone:
        print(json.dumps(train(asked.alone, asked.rows, asked.epochs)))
        return
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in asked.contenders}
    for turn in range(asked.repeat):
        for name in asked.contenders:
            runs[name].append(in_a_process(name, asked.rows, asked.epochs))
            print(f"turn {turn + 1}, {name}: {told(runs[name][-1])}", file=sys.stderr, flush=True)
    report(runs)


def in_a_process(name: str, rows: int, epochs: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--alone", name, "--rows", str(rows), "--epochs", str(epochs)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def train(name: str, rows: int, epochs: int) -> dict[str, Any]:
    """Train one contender; return its speed, scores after each epoch, memory and share of the machine."""
    import polars as pl
    import torch
    import transformers
    from ruamel.yaml import YAML

    from stages.common.params import FinetuneParams, load_params
    from stages.common.params.tasks import task_spec
    from stages.finetune.strategies import prepare
    from stages.finetune.training import train as attune_train
    from stages.finetune.training import training_arguments
    from stages.tasks.text_classification import TASK

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    name, *changes = name.split(",")
    if name not in CONTENDERS:
        raise SystemExit(f"{name}: not one of {', '.join(CONTENDERS)}")
    splits = {split: pl.read_parquet(f"data/tokenized/{split}.parquet") for split in ("train", "validation")}
    if rows:
        splits["train"] = splits["train"].sample(min(rows, splits["train"].height), seed=SEED, shuffle=True)
    space, spec = json.loads(Path("data/tokenized/encoding.json").read_text()), task_spec(TASK.name)
    base = Path("models/base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    clock = clock_callback(transformers.TrainerCallback)
    with tempfile.TemporaryDirectory() as folder:
        if name == "attune":
            changed = {key: YAML(typ="safe").load(value) for key, value in (change.split("=", 1) for change in changes)}
            given = load_params().finetune.model_dump() | {"num_train_epochs": epochs} | changed
            params = FinetuneParams.model_validate(given)
            model = prepare(TASK.build_model(base, space, params, SEED), params)
            best = spec.score(params.metric_for_best_model or spec.main.name)
            arguments = training_arguments(params, Path(folder), SEED, splits["train"].height, best)
            arguments.disable_tqdm = True
            attune_train(model, tokenizer, splits, TASK, space, params, arguments, [clock])
        else:
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                num_train_epochs=epochs,
                learning_rate=2e-5,
                per_device_train_batch_size=16,
                per_device_eval_batch_size=64,
                lr_scheduler_type="constant" if name == "tutorial" else "linear",
                eval_strategy="epoch",
                save_strategy="no",
                use_cpu=not torch.cuda.is_available(),
                seed=SEED,
                report_to="none",
                disable_tqdm=True,
            )
            pad: dict[str, Any] = {"padding": "max_length", "max_length": LENGTH} if name == "tutorial" else {}
            trainer = transformers.Trainer(
                model=TASK.build_model(base, space, FinetuneParams(), SEED),
                args=arguments,
                train_dataset=plain(splits["train"]),
                eval_dataset=plain(splits["validation"]),
                processing_class=tokenizer,
                data_collator=transformers.DataCollatorWithPadding(tokenizer, **pad),
                compute_metrics=lambda given: TASK.validation_scores(*given, space),
                callbacks=[clock],
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
            model = trainer.model
    tokens = int(splits["train"]["length"].sum()) * len(clock.epochs)
    seconds = sum(clock.epochs)
    bf16 = bool(arguments.bf16)
    matrices = sum(part.weight.numel() for part in model.modules() if isinstance(part, torch.nn.Linear))
    gpu = torch.cuda.is_available()
    peak = (
        torch.cuda.max_memory_allocated() / 2**20 if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    return {
        "samples_per_second": splits["train"].height * len(clock.epochs) / seconds,
        "tokens_per_second": tokens / seconds,
        "seconds": [sum(clock.epochs[: at + 1]) for at in range(len(clock.epochs))],
        "accuracy": [scores["eval_accuracy"] for scores in clock.scores],
        "loss": [scores["eval_loss"] for scores in clock.scores],
        "peak_mib": peak,
        "share": 6 * matrices * tokens / seconds / matrix_rate(torch, model.config, bf16),
        "how": f"{torch.cuda.get_device_name() if gpu else f'{torch.get_num_threads()} CPU threads'}, "
        f"torch {torch.__version__}",
    }


def plain(rows: Any) -> Any:
    from datasets import Dataset

    return Dataset.from_polars(rows.select("input_ids", "token_type_ids", "labels"))


def clock_callback(base: Any) -> Any:
    """Make a callback that keeps the seconds of each epoch's steps, and the scores after it."""

    class Clock(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.epochs: list[float] = []
            self.scores: list[dict[str, float]] = []
            self._started = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self._started = time.perf_counter()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            self.epochs.append(time.perf_counter() - self._started)

        def on_evaluate(self, *_: Any, **given: Any) -> None:
            self.scores.append(given["metrics"])

    return Clock()


def matrix_rate(torch: Any, config: Any, bf16: bool) -> float:
    """Return the FLOP/s of this machine in products of the model's shapes, the best of three tries."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if bf16 else torch.float32
    rows, narrow, wide = 4096, config.hidden_size, getattr(config, "intermediate_size", 4 * config.hidden_size)
    left, right = (torch.randn(*shape, device=device, dtype=dtype) for shape in ((rows, narrow), (narrow, wide)))
    rates = []
    for _ in range(4):
        started = time.perf_counter()
        for _ in range(20):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * rows * narrow * wide * 20 / (time.perf_counter() - started))
    return max(rates[1:])


def told(run: dict[str, Any]) -> str:
    scores = ", ".join(f"{value:.4f}" for value in run["accuracy"])
    return f"{run['samples_per_second']:.1f} samples/s, {run['tokens_per_second']:,.0f} tokens/s, accuracy {scores}"


def report(runs: dict[str, list[dict[str, Any]]]) -> None:
    how = next(iter(runs.values()))[0]["how"]
    goal = runs["tutorial"][0]["accuracy"][-1] if "tutorial" in runs else 1.0
    print(f"\n{how}\n")
    print(
        "| | samples/s | tokens/s | × tutorial | × stock | validation loss per epoch | accuracy |"
        f" seconds to {goal:.4f} | peak memory | share of matrix rate |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for name, tries in runs.items():
        ratios = [
            f"{median(mine['tokens_per_second'] / theirs['tokens_per_second'] for mine, theirs in pairs):.2f}"
            if (pairs := list(zip(tries, runs.get(rival, []), strict=False)))
            else "–"
            for rival in ("tutorial", "stock")
        ]
        reached = [
            next(
                (seconds for seconds, score in zip(run["seconds"], run["accuracy"], strict=True) if score >= goal), None
            )
            for run in tries
        ]
        cells = [
            name,
            spread([run["samples_per_second"] for run in tries], ".1f"),
            spread([run["tokens_per_second"] for run in tries], ",.0f"),
            *ratios,
            " → ".join(f"{value:.4f}" for value in tries[0]["loss"]),
            f"{tries[0]['accuracy'][-1]:.4f}",
            "not reached" if None in reached else f"{median(reached):.1f}",
            f"{median(run['peak_mib'] for run in tries):,.0f} MiB",
            f"{median(run['share'] for run in tries):.1%}",
        ]
        print("| " + " | ".join(cells) + " |")


def spread(values: list[float], form: str) -> str:
    middle = f"{median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}–{max(values):{form}})"


if __name__ == "__main__":
    main()
