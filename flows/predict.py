"""`python -m flows.predict INPUT OUTPUT`: predict the rows of a file or a database, in constant memory, resumably.

docs/prediction.md says how to use it. A row in is a row out, in the same order. What was finished when the program was
killed is not predicted again, and the output is the same to the byte.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from flows.command import program
from flows.prediction.model import Model, text_columns
from flows.prediction.parts import assemble, part_path, parts_folder, with_input_columns, write_part
from flows.prediction.request import DATABASE, Request
from stages.common.display import display, visible
from stages.common.drift import VERDICTS, Counts
from stages.common.errors import AttuneError
from stages.common.pipeline.stage import write_json
from stages.serving.backends import VARIANTS

DRIFTED = 3  # exit status of --fail-on-drift; 1 is an error, 2 a wrong command line
LEVELS = {"slight": VERDICTS[1:], "strong": VERDICTS[2:]}
LINE_EVERY = 10.0  # seconds


@program("interrupted; the same command goes on with it")
def main(arguments: list[str] | None = None) -> int:
    """Predict, and say what came of it."""
    options = vars(_parser().parse_args(arguments))
    level = options.pop("fail_on_drift")
    verdict = predict(Request.checked(**options))["drift"]["verdict"]
    return DRIFTED if level and verdict in LEVELS[level] else 0


def predict(request: Request) -> dict[str, Any]:
    """Predict all rows; write output and report, and return the report.

    Raises:
        AttuneError: if input, output or model are not as they must be; finished parts stay for the next try.
    """
    rows_done, last_line, resumed = 0, time.monotonic(), True
    parts: list[Path] = []
    total = Counts()
    with (
        request.open_input() as table,
        parts_folder(request.output) as folder,
        TemporaryDirectory(dir=folder) as download,
        tqdm(total=table.rows, unit=" rows", leave=False, disable=None) as bar,
    ):
        if not request.text:
            request = request.with_text_column(table, text_columns(request.model))
            print(f"texts: the column {display(request.text, 60)}", flush=True)
        names, kept = request.columns(table)
        model = Model(request, Path(download))
        columns = (request.text, request.text_pair, request.id, kept)
        size = request.batch_rows or model.predictor.task.part_rows
        made_with = [model.digest, model.predictor.variant, request.threshold, columns]
        for number, chunk in enumerate(table.batches(names, size)):
            request.columns(table)
            if not (rows_done or chunk.height):
                if not request.input.startswith(DATABASE):
                    raise AttuneError(f"{request.input} has no rows", "see how it was made; an earlier output stays")
                print(f"the query gives no rows, so {visible(str(request.output))} has none", flush=True)
            part = part_path(folder, number, chunk, made_with)
            if part.exists():
                counts: Counts = json.loads(pl.read_parquet_metadata(part)["counts"])
            else:
                if rows_done and resumed:
                    print(f"going on after row {rows_done:,}, which an earlier run came to", flush=True)
                resumed = False
                answers, counts = model.answers(request.rows(chunk, rows_done))
                write_part(part, with_input_columns(answers, chunk, kept, request.output.suffix), counts)
            parts.append(part)
            total = {name: np.add(total.get(name, 0), bins).tolist() for name, bins in counts.items()}
            rows_done += chunk.height
            bar.update(chunk.height)
            if bar.disable and time.monotonic() - last_line > LINE_EVERY:
                last_line = time.monotonic()
                share = rows_done / table.rows if table.rows else table.share and table.share()
                print(f"  {rows_done:,} rows" + (f", {share:.0%}" if share else ""), flush=True)
        report = model.report(total)
        assemble(parts, folder / "whole.tmp", request.output.suffix)
        write_json(report, folder / "report.tmp")
        os.replace(folder / "report.tmp", request.report)
        os.replace(folder / "whole.tmp", request.output)
    _print_report(request, report)
    return report


def _print_report(request: Request, report: Mapping[str, Any]) -> None:
    abstained, empty, drift = report["rows_abstained"], report["rows_without_text"], report["drift"]
    print(visible(f"{report['rows']:,} rows predicted: {request.output}"))
    if abstained or empty:
        print(f"no label: {abstained:,} rows below the threshold, {empty:,} without a text")
    unknown = ": the model came without a profile of its training data" if "measures" not in drift else ""
    print(f"drift: {drift['verdict']}{unknown}")
    for measure in drift.get("measures", []):
        reason = f", {measure['reason']}" if measure["verdict"] in LEVELS["slight"] else ""
        chance = f"PSI {measure['psi']:.3f}, by chance up to {measure['limit']:.3f}"
        print(f"  {measure['measure']}: {measure['verdict']} ({chance}){reason}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.predict", description="Predict the rows of a file or database: docs/prediction.md"
    )
    add = parser.add_argument
    add("input", help="CSV, TSV, JSON lines, plain lines or Parquet (also .gz …); a database as sql:VARIABLE")
    add("output", type=Path, help="a file that ends in .parquet, .csv or .jsonl")
    add("--model", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder (default: the champion of params.yaml)")
    add("--variant", choices=VARIANTS, help="form of the model (default: onnx if it was exported)")
    add("--text", default=Request.text, metavar="COLUMN", help="the texts (default: as in training, or text)")
    add("--text-pair", metavar="COLUMN", help="the second texts of pairs")
    add("--id", metavar="COLUMN", help="ids of the rows (default: their numbers, from 1)")
    add("--keep", action="append", default=[], metavar="COLUMN", help="copy a column to the output; may be repeated")
    add("--keep-all", action="store_true", help="copy all columns but that of --id")
    add("--separator", default=Request.separator, help="of a CSV file (default: ,)")
    add("--quote", choices=(Request.quote, "none"), default=Request.quote, help="none: quotes mean nothing in the file")
    add("--escape", choices=("\\", "none"), default=Request.escape, help="what takes a quote's meaning (default: none)")
    add("--no-header", dest="header", action="store_false", help="the columns are called column 1, column 2 and so on")
    add("--skip", type=int, default=Request.skip, metavar="N", help="lines at the beginning that are passed over")
    add("--encoding", default=Request.encoding, help="of a text file (default: utf-8)")
    add("--query", help="one SELECT to the database")
    add("--threshold", type=float, help="abstain below this probability, instead of the model's own thresholds")
    add("--batch-rows", type=int, metavar="N", help="rows at a time (default: 2048; 64 if answers are generated)")
    help_on_drift = f"exit with {DRIFTED}, with everything written, when drift is strong (or slight already)"
    add("--fail-on-drift", nargs="?", const="strong", choices=list(LEVELS), help=help_on_drift)
    return parser


if __name__ == "__main__":
    sys.exit(main())
