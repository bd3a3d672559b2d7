"""Projects for searches and cross-validations: small, tokenized, with a stage that trains or one that only says so."""

import random
import sys
from pathlib import Path
from typing import Any

from tests.projects import Project, pipeline_project, tiny

WORDS = {"good": ["warm", "bright", "moving"], "bad": ["dull", "flat", "noisy"]}
FILLER = ["the", "film", "was", "a", "story", "about", "time", "music"]
NOWHERE = "http://127.0.0.1:9"  # no MLflow there: it is clear in a moment, and costs nothing

# A stage in the real frame that reports epochs without a training. Its score is best at a learning rate of 1e-3; above
# 0.5 it fails. Where it hangs after an epoch stands in a file of the project's folder, three above the trial's.
PRETENDED = '''
"""finetune: nothing is trained; epochs and scores are made up."""
import json, math, time
from pathlib import Path
from stages.common.errors import AttuneError
from stages.common.pipeline.stage import stage

ROOT = Path("../../..")


@stage("finetune")
def main(run):
    rate, epochs = run.params.learning_rate, run.params.num_train_epochs
    with (ROOT / "started").open("a") as file:
        print(rate, file=file)
    number = len((ROOT / "started").read_text().splitlines())
    if rate > 0.5:
        raise AttuneError("the loss is not a number any more", "lower finetune.learning_rate")
    best = 1 - abs(math.log10(rate) + 3) / 6
    names = "step,epoch,validation_loss,validation_accuracy,validation_macro_f1"
    Path("logs").mkdir(exist_ok=True)
    points = []
    for epoch in range(1, epochs + 1):
        score = best * epoch / epochs
        points.append([epoch * 10, float(epoch), 1 - score, score, score])
        live = [json.dumps(dict(zip(names.split(","), point))) + "\\n" for point in points]
        Path("logs/finetune.jsonl").write_text("".join(live))
        hangs = ROOT / "hangs"  # rates, or the number of the start, at which it hangs after an epoch
        if hangs.exists() and {str(rate), f"start {number}"} & set(hangs.read_text().splitlines()):
            time.sleep(1000)  # longer than a command of a test may take
    run.output("models/finetuned").mkdir()
    run.output("reports/plots/training.csv").write_text("step,epoch,name,value\\n")
    names = [name.removeprefix("validation_") for name in names.split(",")[2:]]
    table = [f"{step},{epoch},{row[0]},{row[1]}\\n" for step, epoch, *scores in points for row in zip(names, scores)]
    run.output("reports/plots/validation.csv").write_text("step,epoch,name,value\\n" + "".join(table))


if __name__ == "__main__":
    main()
'''


# One process for four stages: what takes the time is importing the libraries.
UP_TO_TOKENIZE = """
import importlib
for stage in ("ingest", "clean", "augment", "tokenize"):
    try:
        importlib.import_module(f"stages.{stage}.__main__").main()
    except SystemExit as end:
        assert not end.code
"""


def tokenized_project(root: Path, downloads: Path) -> Project:
    """Make a project of 150 rows in groups and three folds, run up to tokenize."""
    project = pipeline_project(root, downloads)
    lines = [f"{line},group {number // 4}" for number, line in enumerate(rows(150))]
    project.inbox("rows.csv", "\n".join(["text,label,group", *lines, ""]))
    project.use("own-csv")

    def small(params: Any) -> None:
        columns = {"text": "text", "label": "label", "group": "group"}
        params["ingest"]["sources"] = [{"path": "data/inbox/rows.csv", "columns": columns}]
        tiny(params)
        off = {"near_duplicates": {"enabled": False}, "label_issues": {"action": "off"}}
        params["clean"] = off | {"split": {"folds": 3}}
        params["augment"] = {"random_swap": {"share": 0.3}}
        params["finetune"] |= {"learning_rate": 1.0e-5, "num_train_epochs": 2, "torch_num_threads": 1}
        params["finetune"]["per_device_train_batch_size"] = 4

    project.change(small)
    project.run(sys.executable, "-c", UP_TO_TOKENIZE, OMP_NUM_THREADS="1")
    return project


def pretending(project: Project) -> Project:
    """Return the project, whose finetune now only pretends to train."""
    project.file("stages/finetune/__main__.py", PRETENDED)
    return project


def started(project: Project) -> list[float]:
    """Return the learning rates of the trainings that were begun, in order."""
    path = project.root / "started"
    return [float(line) for line in path.read_text().splitlines()] if path.exists() else []


def rows(count: int) -> list[str]:
    """Return lines of text and label, in which some words tell the label."""
    rng, labels = random.Random(1), [list(WORDS)[number % 2] for number in range(count)]
    return [" ".join([*rng.choices(FILLER, k=5), *rng.choices(WORDS[label], k=3)]) + f",{label}" for label in labels]
