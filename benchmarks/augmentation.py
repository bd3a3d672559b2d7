"""Does augmentation pay? Accuracy on the default data with each method on and off, over several seeds.

    python benchmarks/augmentation.py [--rows 4000] [--seeds 13 14 15] [--share 0.5]

Works in a clone of the last commit, prints one Markdown table and leaves the checkout alone. The same seed draws the
same split and the same first weights for every method, so that rows of the table differ by the method alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

from ruamel.yaml import YAML

PROJECT = Path(__file__).resolve().parent.parent
METHODS = ("none", "random_deletion", "random_swap", "punctuation_insertion")
yaml = YAML()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=None, help="use so many rows of the data (default: all)")
    options.add_argument("--seeds", type=int, nargs="+", default=[13, 14, 15])
    options.add_argument("--share", type=float, default=0.5, help="new rows per training row")
    asked = options.parse_args()
    results: dict[str, list[dict]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "attune"
        subprocess.run(["git", "clone", "-q", str(PROJECT), str(root)], check=True)
        downloads = PROJECT / ".attune" / "downloads"
        if downloads.exists():
            (root / ".attune").mkdir()
            (root / ".attune" / "downloads").symlink_to(downloads)
        for seed in asked.seeds:
            for method in METHODS:
                results[method].append(run(root, method, seed, asked.share, asked.rows))
                print(f"seed {seed} {method}: {results[method][-1]}", file=sys.stderr, flush=True)
    print(
        "| method | test accuracy, mean (per seed) | spread | difference to none, mean (per seed) |\n|---|---|---|---|"
    )
    for method, runs in results.items():
        scores = [one["accuracy"] for one in runs]
        gains = [one["accuracy"] - none["accuracy"] for one, none in zip(runs, results["none"], strict=True)]
        spread = f"{stdev(scores):.4f}" if len(scores) > 1 else "–"
        listed = " ".join(f"{score:.4f}" for score in scores)
        difference = " ".join(f"{gain:+.4f}" for gain in gains)
        print(f"| {method} | {mean(scores):.4f} ({listed}) | {spread} | {mean(gains):+.4f} ({difference}) |")


def run(root: Path, method: str, seed: int, share: float, rows: int | None) -> dict[str, float]:
    path = root / "params.yaml"
    params = yaml.load(path)
    params["seed"] = seed
    params["ingest"]["limit"] = rows
    for name in METHODS[1:]:
        params["augment"][name]["share"] = share if name == method else 0.0
    params["evaluate"]["baselines"] = []
    params["register"]["gates"]["beat_baselines"] = []
    yaml.dump(params, path)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{root}/mlflow.db"
    subprocess.run(["dvc", "repro", "-q", "evaluate"], cwd=root, env=environment, check=True, stdout=sys.stderr)
    metrics = json.loads((root / "reports" / "metrics.json").read_text())
    return {"accuracy": metrics["accuracy"], "macro_f1": metrics["macro_f1"]}


if __name__ == "__main__":
    main()
