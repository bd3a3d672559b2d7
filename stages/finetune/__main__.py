"""finetune: train the base model on the token ids; keep the epoch that is best on validation."""

import json
import os

from stages.common.params import FinetuneParams
from stages.common.schemas import TokenizedRecords
from stages.common.stage import Run, stage
from stages.common.tracking.live import LiveRun
from stages.common.tracking.runs import model_digest
from stages.tasks import load_task


@stage("finetune")
def main(run: Run[FinetuneParams]) -> None:
    """Train, watched live in MLflow, and write model, tokenizer and curves."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the data loader pads; it has nothing to tokenize
    import torch
    import transformers
    from transformers import AutoTokenizer

    from stages.finetune.arguments import training_arguments
    from stages.finetune.curves import write_curves
    from stages.finetune.progress import LiveTracking, PlainProgress
    from stages.finetune.strategies import prepare, save, trainable
    from stages.finetune.training import train

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # of loading and saving; the training keeps its own
    if run.params.torch_num_threads:
        torch.set_num_threads(run.params.torch_num_threads)
    inputs = run.inputs_digest()
    checkpoints = run.work_folder(f"checkpoints/{inputs[:16]}")

    splits = {
        name: TokenizedRecords.read(run.input(f"data/tokenized/{name}.parquet")) for name in ("train", "validation")
    }
    encoding = json.loads(run.input("data/tokenized/encoding.json").read_text(encoding="utf-8"))
    labels = encoding["labels"]
    base = run.input("models/base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    task = load_task(run.all_params.task)
    model = task.build_model(base, sorted(labels, key=labels.__getitem__), run.params.dropout, run.seed)
    model = prepare(model, run.params)
    arguments = training_arguments(run.params, checkpoints, run.seed, splits["train"].height)
    print(
        f"  {trainable(model):,} weights on {splits['train'].height:,} rows, {_how(torch, arguments.bf16)}", flush=True
    )

    environment = {"attune.threads": str(torch.get_num_threads()), "attune.torch": torch.__version__}
    live = LiveRun(run.all_params, inputs, environment)
    callbacks = [LiveTracking(live), PlainProgress(terminal=not arguments.disable_tqdm)]
    history = train(model, tokenizer, splits, labels, run.params, arguments, task.validation_metrics, callbacks)

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
    return f"{device}, {'bfloat16' if bf16 else 'float32'}"


if __name__ == "__main__":
    main()
