"""Does augmentation pay? Each method on and off over several seeds, on the default data.

    python benchmarks/augmentation.py --results augmentation.jsonl [--train-rows 2000] [--wordnet /usr/share/wordnet]
        [--train-mlm 2] [--translation FORWARD BACK]

For each seed `ingest` and `clean` run once on all the data, so that validation and test are whole; of the training
rows a seeded sample is kept, and every method is trained and scored on that by the stages' own programs. A second,
cheap table trains TF-IDF and logistic regression on all training rows and what the method makes of them.

One thread by default, so that it can run on one core beside other work (`taskset -c 1 python …`). Each result is one
line of the results file as soon as it is there, and is not measured again: start it again after a stop, with the same
options. Works in a copy of the checkout as it is and leaves the checkout alone. Prints Markdown.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import polars as pl
from ruamel.yaml import YAML

PROJECT = Path(__file__).resolve().parent.parent
LIGHT = ("random_deletion", "random_swap", "punctuation_insertion")
STEPS = "none, as many steps"
yaml = YAML()


def main() -> None:
    asked = options()
    methods, unmeasured = ["none", STEPS, *LIGHT], {}
    for name, given, why in (
        ("synonyms", asked.wordnet, "no WordNet (--wordnet)"),
        ("contextual", asked.train_mlm, "no masked language model (--train-mlm)"),
        ("back_translation", asked.translation, "no translation models (--translation)"),
    ):
        methods += [name] if given else []
        unmeasured |= {} if given else {name: why}
    done = read(asked.results)
    with tempfile.TemporaryDirectory(dir=asked.work) as folder:
        root = copy_of_checkout(Path(folder) / "attune")
        for seed in asked.seeds:
            cells = [("tfidf", name) for name in methods if name != STEPS] + [("finetune", name) for name in methods]
            left = [cell for cell in cells if (seed, *cell) not in done]
            if left:
                prepare(root, seed, asked, mlm="contextual" in {name for _, name in left})
            for kind, name in left:
                result = measure(root, kind, name, seed, asked)
                done[seed, kind, name] = result
                with asked.results.open("a") as file:
                    file.write(json.dumps({"seed": seed, "kind": kind, "method": name, **result}) + "\n")
                print(f"seed {seed}, {kind}, {name}: {result['accuracy']:.4f}", file=sys.stderr, flush=True)
    print(f"## Fine-tuning on {asked.train_rows:,} training rows, {asked.epochs} epochs, share {asked.share}\n")
    print(table(done, "finetune", methods, asked.seeds, unmeasured))
    if asked.train_mlm:
        print(
            f"\ncontextual: the base model with {asked.train_mlm} epochs of masked words in the seed's training texts"
        )
    print(f"\n## TF-IDF and logistic regression on all training rows, share {asked.share}\n")
    print(table(done, "tfidf", [name for name in methods if name != STEPS], asked.seeds, unmeasured))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=lambda name: Path(name).resolve(), required=True, help="file of JSON lines")
    parser.add_argument("--seeds", type=int, nargs="+", default=[13, 14, 15])
    parser.add_argument("--train-rows", type=int, default=2000, help="training rows that are fine-tuned on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--share", type=float, default=1.0, help="new rows per training row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=None, help="where the copy of the checkout is made")
    parser.add_argument("--wordnet", type=Path, default=None, help="Princeton WordNet's dict folder")
    parser.add_argument("--train-mlm", type=int, default=0, help="epochs of masked-word training of the base model")
    parser.add_argument("--translation", type=Path, nargs=2, default=None, help="two folders of seq2seq models")
    return parser.parse_args()


def read(results: Path) -> dict[tuple[int, str, str], dict[str, Any]]:
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    return {(line["seed"], line["kind"], line["method"]): line for line in lines}


def copy_of_checkout(root: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, root / name)
    (root / ".attune").mkdir()
    if (downloads := PROJECT / ".attune" / "downloads").exists():
        (root / ".attune" / "downloads").symlink_to(downloads)
    return root


def prepare(root: Path, seed: int, asked: argparse.Namespace, *, mlm: bool) -> None:
    """Bring in all data, split it for this seed, and set a sample of the training rows aside."""
    inbox = root / "data" / "inbox"
    resources: dict[str, Any] = {}
    if asked.wordnet:
        shutil.copytree(asked.wordnet, inbox / "wordnet", dirs_exist_ok=True)
        resources["wordnet"] = {"path": "data/inbox/wordnet"}
    if asked.translation:
        for name, folder in zip(("forward", "back"), asked.translation, strict=True):
            shutil.copytree(folder, inbox / name, dirs_exist_ok=True)
        resources["translation"] = {name: {"path": f"data/inbox/{name}"} for name in ("forward", "back")}
    configure(root, seed, resources, asked, method="none")
    run(root, "stages.ingest", asked)
    run(root, "stages.clean", asked)
    if mlm:
        shutil.rmtree(inbox / "masked_lm", ignore_errors=True)
        epochs, threads = str(asked.train_mlm), str(asked.threads)
        run(root, "benchmarks.masked_lm", asked, "data/inbox/masked_lm", epochs, str(seed), threads)
        resources["masked_lm"] = {"path": "data/inbox/masked_lm"}
        configure(root, seed, resources, asked, method="none")
        run(root, "stages.ingest", asked)
    train = pl.read_parquet(root / "data/clean/train.parquet")
    few = min(asked.train_rows, train.height)
    chosen = sorted(random.Random(seed).sample(range(train.height), few))
    train.write_parquet(root / "all.parquet")
    train[chosen].write_parquet(root / "sample.parquet")


def configure(root: Path, seed: int, resources: dict[str, Any], asked: argparse.Namespace, method: str) -> None:
    path = root / "params.yaml"
    params = yaml.load(path)
    params["seed"] = seed
    if resources:
        params["ingest"]["resources"] = resources
    params["augment"] = {method: {"share": asked.share}} if method not in ("none", STEPS) else {}
    longer = 1 + asked.share if method == STEPS else 1
    params["finetune"].update(num_train_epochs=round(asked.epochs * longer), torch_num_threads=asked.threads)
    params["evaluate"]["baselines"] = []
    params["register"]["gates"]["beat_baselines"] = []
    yaml.dump(params, path)


def measure(root: Path, kind: str, method: str, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Run one cell of a table; return scores, seconds and which test rows (by id) were right."""
    started = time.perf_counter()
    configure(root, seed, {}, asked, method)
    shutil.copy(root / f"{'all' if kind == 'tfidf' else 'sample'}.parquet", root / "data/clean/train.parquet")
    run(root, "stages.augment", asked)
    if kind == "tfidf":
        predictions = by_tfidf(root)
    else:
        for stage in ("tokenize", "finetune", "evaluate"):
            run(root, f"stages.{stage}", asked)
        predictions = pl.read_parquet(root / "data/predictions.parquet")
    from sklearn.metrics import accuracy_score, f1_score

    predictions = predictions.sort("id")
    actual, predicted = predictions["label"].to_list(), predictions["prediction"].to_list()
    return {
        "accuracy": accuracy_score(actual, predicted),
        "macro_f1": f1_score(actual, predicted, average="macro"),
        "rows_added": json.loads((root / "reports/augment.json").read_text())["rows_added"],
        "seconds": round(time.perf_counter() - started, 1),
        "right": "".join(str(int(one == other)) for one, other in zip(actual, predicted, strict=True)),
    }


def by_tfidf(root: Path) -> pl.DataFrame:
    sys.path.insert(0, str(PROJECT))
    from stages.evaluate.baselines import tfidf

    train, test = (
        pl.read_parquet(root / "data/augmented/train.parquet"),
        pl.read_parquet(root / "data/clean/test.parquet"),
    )
    labels = train["label"].unique().sort()
    numbers = {label: at for at, label in enumerate(labels)}
    predicted = tfidf(train, train["label"].replace_strict(numbers).to_numpy(), test)
    return test.select("id", "label", prediction=labels.gather(predicted.tolist()))


def run(root: Path, module: str, asked: argparse.Namespace, *arguments: str) -> None:
    threads = {name: str(asked.threads) for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")}
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=root, env=os.environ | threads | tracking,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{module} ended with {done.returncode}:\n{done.stderr}")


def table(done: dict, kind: str, methods: list[str], seeds: list[int], unmeasured: dict[str, str]) -> str:
    """One line a method: scores, differences to none, a 95 % interval (t) over seeds, McNemar's test over all rows."""
    from scipy.stats import binomtest, t

    lines = [
        "| method | accuracy | macro-F1 | accuracy − none | mean, 95 % interval | McNemar p | rows added | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in methods:
        own, none = ([done[seed, kind, method] for seed in seeds] for method in (name, "none"))
        accuracy, macro_f1, added, seconds = (
            mean(one[key] for one in own) for key in ("accuracy", "macro_f1", "rows_added", "seconds")
        )
        gains = [one["accuracy"] - other["accuracy"] for one, other in zip(own, none, strict=True)]
        half = t.ppf(0.975, len(gains) - 1) * stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
        interval = "–" if half is None else f"{mean(gains):+.4f} ± {half:.4f}"
        rights = [("".join(one["right"] for one in runs)) for runs in (own, none)]
        pairs = list(zip(*rights, strict=True))
        better, worse = pairs.count(("1", "0")), pairs.count(("0", "1"))
        p = f"{binomtest(better, better + worse).pvalue:.2f}" if better + worse else "–"
        listed = " ".join(f"{gain:+.4f}" for gain in gains)
        compared = " | | " if name == "none" else f"{listed} | {interval} | {p}"
        lines.append(f"| {name} | {accuracy:.4f} | {macro_f1:.4f} | {compared} | {added:.0f} | {seconds:.0f} |")
    lines += [f"| {name} | not measured: {why} | | | | | | |" for name, why in unmeasured.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
