"""finetune: train the base model on the token ids; keep the epoch that is best on validation."""

import json
import os
import sys

from stages.common.digests import sha256_path
from stages.common.distributed import world_size
from stages.common.environment import tags, training_environment, with_earlier
from stages.common.params import FinetuneParams
from stages.common.pipeline.stage import Run, stage
from stages.common.schemas import TokenizedRecords
from stages.finetune.machine import join, launch, wanted
from stages.tasks import load_task
from stages.tracking.live import LIVE, LiveRun


@stage("finetune")
def main(run: Run[FinetuneParams]) -> None:
    """Train, watched live in MLflow, and write model, tokenizer and curves."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the data loader pads; it has nothing to tokenize
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns that it looks for unused weights in vain
    from transformers import AutoTokenizer, TrainerCallback

    from stages.finetune.checkpoints import discard_others, last_checkpoint
    from stages.finetune.progress import Curves, Progress, write_curves
    from stages.finetune.strategies import prepare, save
    from stages.finetune.training import train, training_arguments

    join(run.params)
    inputs, processes = run.inputs_digest(), world_size()  # which torchrun may have set, and not the params
    checkpoints = run.work_folder(f"checkpoints/{inputs[:16]}" + (f"-{processes}" if processes > 1 else ""))
    resumed = last_checkpoint(checkpoints) is not None
    if run.leads and not resumed:
        discard_others(checkpoints)

    splits = {
        name: TokenizedRecords.read(run.input(f"data/tokenized/{name}.parquet")) for name in ("train", "validation")
    }
    encoding = json.loads(run.input("data/tokenized/encoding.json").read_text(encoding="utf-8"))
    base = run.input("models/base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    task, spec = load_task(run.all_params.task), run.all_params.spec
    model = task.build_model(base, encoding, run.params, run.seed)
    model = prepare(model, run.params, encoding["max_length"], task.adapts)
    best = spec.score(run.all_params.metric_for_best_model)
    arguments = training_arguments(run.params, checkpoints, run.seed, splits["train"].height, best)
    environment = training_environment("bfloat16" if arguments.bf16 else "float32")
    device = f"{environment['threads']} CPU threads" if environment["device"] == "cpu" else "GPU"
    device += f" for each of {processes} processes" if processes > 1 else ""
    trainable = sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
    extent = f"{trainable:,} weights on {splits['train'].height:,} rows"
    print(f"  {extent}, {device}, {environment['precision']}", flush=True)

    callbacks: list[TrainerCallback] = []
    if run.leads:
        environment = with_earlier(environment, checkpoints / "environment.json", resumed)
        live = LiveRun(run.all_params, inputs, tags(environment))
        shown = [*spec.headline, *({best} - {*spec.headline, spec.score("loss")})]
        callbacks = [Curves(LIVE, live), Progress(sys.stderr.isatty(), shown)]
    history = train(model, tokenizer, splits, task, encoding, run.params, arguments, callbacks)
    if not run.leads:
        return

    folder = run.output("models/finetuned")
    task.finished(model, encoding, folder)
    save(model, run.params, folder)
    tokenizer.model_max_length = encoding["max_length"]  # whoever uses the model cuts texts as the training did
    tokenizer.save_pretrained(folder)
    curves = [run.output("reports/plots/training.csv"), run.output("reports/plots/validation.csv")]
    write_curves(history, *curves)
    live.finish(sha256_path(folder), curves)
    run.leftovers.append(checkpoints)


if __name__ == "__main__":
    if (count := wanted()) > 1:
        sys.exit(launch(count))
    main()
