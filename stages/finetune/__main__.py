"""finetune: train the base model on the token ids; keep the epoch that is best on validation."""

import json
import os
import sys

from stages.common.params import FinetuneParams
from stages.common.ranks import world_size
from stages.common.schemas import TokenizedRecords
from stages.common.stage import Run, stage
from stages.common.tracking.live import LIVE, LiveRun
from stages.common.tracking.runs import model_digest
from stages.finetune.processes import join, launch, part, wanted
from stages.tasks import load_task


@stage("finetune")
def main(run: Run[FinetuneParams]) -> None:
    """Train, watched live in MLflow, and write model, tokenizer and curves."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the data loader pads; it has nothing to tokenize
    if world_size() > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns that it looks for unused weights in vain
    import torch
    import transformers
    from transformers import AutoTokenizer

    from stages.finetune.allocator import keep_memory
    from stages.finetune.arguments import training_arguments
    from stages.finetune.checkpoints import discard_others, last_checkpoint
    from stages.finetune.curves import write_curves
    from stages.finetune.progress import watchers
    from stages.finetune.strategies import prepare, save, trainable
    from stages.finetune.training import train

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # of loading and saving; the training keeps its own
    join(run.params)
    if not torch.cuda.is_available():
        keep_memory()
    inputs = run.inputs_digest()
    processes = f"-{world_size()}" if world_size() > 1 else ""  # which torchrun may have set, and not the params
    checkpoints = run.work_folder(f"checkpoints/{inputs[:16]}{processes}")
    if run.leads and not last_checkpoint(checkpoints):
        discard_others(checkpoints)

    splits = {
        name: TokenizedRecords.read(run.input(f"data/tokenized/{name}.parquet")) for name in ("train", "validation")
    }
    encoding = json.loads(run.input("data/tokenized/encoding.json").read_text(encoding="utf-8"))
    labels = encoding["labels"]
    base = run.input("models/base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    task = load_task(run.all_params.task)
    model = task.build_model(base, sorted(labels, key=labels.__getitem__), run.params.dropout, run.seed)
    model = prepare(model, run.params, encoding["max_length"])
    arguments = training_arguments(run.params, checkpoints, run.seed, splits["train"].height)
    print(
        f"  {trainable(model):,} weights on {splits['train'].height:,} rows, {_how(torch, arguments.bf16)}", flush=True
    )

    environment = {"attune.threads": str(torch.get_num_threads()), "attune.torch": torch.__version__}
    if processes:
        environment["attune.processes"] = str(world_size())
    live = LiveRun(run.all_params, inputs, environment) if run.leads else None
    callbacks = watchers(live, LIVE) if live else []
    history = train(model, tokenizer, splits, labels, run.params, arguments, task.validation_metrics, callbacks)
    part()
    if live is None:
        return

    folder = run.output("models/finetuned")
    save(model, run.params, folder)
    tokenizer.model_max_length = encoding["max_length"]  # whoever uses the model cuts texts as the training did
    tokenizer.save_pretrained(folder)
    curves = [run.output("reports/plots/training.csv"), run.output("reports/plots/validation.csv")]
    write_curves(history, *curves)
    live.finish(model_digest(folder), curves)
    run.leftovers.append(checkpoints)


def _how(torch: object, bf16: bool) -> str:
    device = "GPU" if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"  # type: ignore[attr-defined]
    each = f" for each of {world_size()} processes" if world_size() > 1 else ""
    return f"{device}{each}, {'bfloat16' if bf16 else 'float32'}"


if __name__ == "__main__":
    if (processes := wanted()) > 1:
        sys.exit(launch("stages.finetune", processes))
    main()
