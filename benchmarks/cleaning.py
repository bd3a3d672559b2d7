"""How fast is cleaning, how much memory does it take, and does it find what exact comparison finds?

    python benchmarks/cleaning.py [--rows 2000000] [--rival-rows 50000] [--sample 4000] [--repeat 3]

Makes rows by resampling and perturbing the default data (a fifth are copies, three tenths have up to three typing
errors, in half of them 30 to 70 % of the words are replaced by words from anywhere in the data), and prints one table:

- the whole stage `python -m stages.clean` on all rows: rows a second and peak memory of all its processes;
- near-duplicate search alone against datasketch on the same rows with the same shingles, permutations and threshold,
  one after the other in turns, medians;
- pairs found against all pairs compared exactly, on a sample.

Works in a clone of the last commit and leaves the checkout alone. Needs: pip install -r requirements-dev.txt.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
import psutil

PROJECT = Path(__file__).resolve().parent.parent
THRESHOLD, SHINGLE, PERMUTATIONS = 0.8, 5, 128


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=2_000_000, help="rows that the whole stage cleans")
    options.add_argument("--rival-rows", type=int, default=50_000, help="rows of the comparison with datasketch")
    options.add_argument("--sample", type=int, default=4_000, help="rows of which all pairs are compared exactly")
    options.add_argument("--repeat", type=int, default=3, help="turns of the comparison")
    asked = options.parse_args()
    print("| what | rows | result |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = clone(Path(folder) / "attune")
        stage(root, "ingest")
        real = pl.read_parquet(root / "data" / "raw" / "records.parquet")
        perturbed(real, asked.rows).write_parquet(root / "data" / "raw" / "records.parquet")
        seconds, peak, told = stage(root, "clean")
        print(told, file=sys.stderr)
        rate = f"{asked.rows / seconds:,.0f} rows/s, {seconds:.1f} s, peak {peak:,.0f} MiB"
        report(f"clean, end to end | {asked.rows:,} | {rate}")
        texts = perturbed(real, asked.rival_rows)["text"].unique(maintain_order=True)
        sample = perturbed(real.head(asked.sample // 10), asked.sample)["text"].unique(maintain_order=True)
    against_datasketch(texts, asked.repeat)
    against_exact(sample)


def clone(root: Path) -> Path:
    subprocess.run(["git", "clone", "-q", str(PROJECT), str(root)], check=True)
    downloads = PROJECT / ".attune" / "downloads"
    if downloads.exists():
        (root / ".attune").mkdir()
        (root / ".attune" / "downloads").symlink_to(downloads)
    return root


def stage(root: Path, name: str) -> tuple[float, float, str]:
    """Run a stage; return seconds, peak memory of its process tree in MiB (looked at 20 times a second), output."""
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as out:
        running = subprocess.Popen([sys.executable, "-m", f"stages.{name}"], cwd=root, stdout=out, stderr=out)
        process = psutil.Process(running.pid)
        while running.poll() is None:
            try:
                tree = [process, *process.children(recursive=True)]
                peak = max(peak, sum(one.memory_info().rss for one in tree))
            except psutil.Error:
                pass
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        out.seek(0)
        told = out.read()
    if running.returncode:
        raise SystemExit(told)
    return seconds, peak / 2**20, told


def perturbed(real: pl.DataFrame, rows: int, seed: int = 13) -> pl.DataFrame:
    """Return so many raw records made of the real ones."""
    from stages.ingest.spool import with_text_ids

    rng = random.Random(seed)
    texts = real["text"].to_list()
    words = [word for text in texts for word in text.split(" ")]
    origin = [rng.randrange(len(texts)) for _ in range(rows)]
    made = [change(texts[at], words, rng) for at in origin]
    rows = with_text_ids(real[origin].with_columns(text=pl.Series(made))).select(real.columns)
    number = pl.int_range(1, pl.len() + 1).over("id")
    return rows.with_columns(id=pl.when(number == 1).then("id").otherwise(pl.col("id") + "." + number.cast(pl.String)))


def change(text: str, words: list[str], rng: random.Random) -> str:
    lot = rng.random()
    if lot < 0.2:
        return text
    if lot < 0.5:
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz ") + text[at + rng.randint(0, 1) :]
        return text
    share = rng.uniform(0.3, 0.7)
    return " ".join(rng.choice(words) if rng.random() < share else word for word in text.split(" "))


def against_datasketch(texts: pl.Series, repeat: int) -> None:
    from stages.common.text.near_duplicates import deduplicate

    seconds: dict[str, list[float]] = {"attune": [], "datasketch": []}
    kept: dict[str, int] = {}
    for _ in range(repeat):
        for name, search in (
            ("attune", lambda: int((deduplicate(texts, THRESHOLD, SHINGLE, PERMUTATIONS)[0] < 0).sum())),
            ("datasketch", lambda: datasketch_keeps(texts.to_list())),
        ):
            seconds[name].append(timed(search, kept, name))
    ours, theirs = median(seconds["attune"]), median(seconds["datasketch"])
    rate = f"{len(texts) / ours:,.0f} against {len(texts) / theirs:,.0f} rows/s"
    stays = f"kept {kept['attune']:,} and {kept['datasketch']:,}"
    report(f"near-duplicates against datasketch | {len(texts):,} | {theirs / ours:.1f} times as fast: {rate}; {stays}")


def timed(search: Callable[[], int], kept: dict[str, int], name: str) -> float:
    started = time.perf_counter()
    kept[name] = search()
    return time.perf_counter() - started


def datasketch_keeps(texts: list[str]) -> int:
    """Count the texts that nearly equal no kept one before, by datasketch's estimate (its documented way)."""
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    kept = 0
    sets = [{gram.encode() for gram in grams(text)} for text in texts]
    for at, signature in enumerate(MinHash.generator(sets, num_perm=PERMUTATIONS, seed=1)):
        if not lsh.query(signature):
            lsh.insert(at, signature)
            kept += 1
    return kept


def grams(text: str) -> set[str]:
    folded = text.casefold()
    return {folded[start : start + SHINGLE] for start in range(max(1, len(folded) - SHINGLE + 1))}


def against_exact(texts: pl.Series) -> None:
    """Compare what is found with all pairs' exact similarity: a text has a match among the others, or it has none."""
    from sklearn.feature_extraction.text import CountVectorizer

    from stages.common.text.near_duplicates import deduplicate, nearest_among

    counts = CountVectorizer(analyzer=lambda text: list(grams(text)), binary=True, dtype=np.int32)
    matrix = counts.fit_transform(texts.to_list()).tocsr()
    sizes = np.asarray(matrix.sum(axis=1)).ravel()
    common = (matrix @ matrix.T).tocoo()
    jaccard = common.data / (sizes[common.row] + sizes[common.col] - common.data)
    near = (jaccard >= THRESHOLD) & (common.row < common.col)
    pairs = set(zip(common.row[near].tolist(), common.col[near].tolist(), strict=True))
    # Every pair on its own, so that each is found or missed by itself.
    found = {
        (one, other)
        for one, other in zip(common.row[near].tolist(), common.col[near].tolist(), strict=True)
        if nearest_among(texts[[one]], texts[[other]], THRESHOLD, SHINGLE, PERMUTATIONS)[0][0] == 0
    }
    share = f"{len(found):,} of {len(pairs):,} = {len(found) / len(pairs):.4f}"
    report(f"pairs found of those with exact similarity ≥ {THRESHOLD} | {len(texts):,} | {share}")
    stays = deduplicate(texts, THRESHOLD, SHINGLE, PERMUTATIONS)[0] < 0
    expected = one_by_one(len(texts), pairs)
    agree = float((stays == expected).mean())
    report(f"same rows kept as by exact comparison of all pairs | {len(texts):,} | {agree:.4f}")


def one_by_one(rows: int, pairs: set[tuple[int, int]]) -> np.ndarray:
    earlier: dict[int, list[int]] = {}
    for one, other in pairs:
        earlier.setdefault(other, []).append(one)
    stays = np.ones(rows, dtype=bool)
    for row in range(rows):
        stays[row] = not any(stays[one] for one in earlier.get(row, []))
    return stays


def report(line: str) -> None:
    print(f"| {line} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    sys.path.insert(0, str(PROJECT))
    main()
