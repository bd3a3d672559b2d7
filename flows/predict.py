"""`python -m flows.predict INPUT OUTPUT`: predict the rows of a file or a database, in constant memory, resumably.

docs/prediction.md says how to use it. A row in is a row out, in the same order. What was finished when the program was
killed is not predicted again, and the output is the same to the byte.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.exceptions import PolarsError
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from flows.command import exit_status
from flows.prediction.answers import answer, check_kept, cleaned, to_predict, with_kept
from flows.prediction.model import find_package, load, profile_in
from flows.prediction.parts import MODEL, Parts, parts_folder
from flows.prediction.progress import progress
from flows.prediction.request import Columns, Request
from stages.common.drift import VERDICTS, Counts, added, answer_counts, drift_report, text_counts
from stages.common.errors import AttuneError
from stages.common.readers.table import Table
from stages.common.serving.classifier import VARIANTS, Package
from stages.common.shown import shown, visible
from stages.common.stage import of_the_disk, write_json

if TYPE_CHECKING:
    from stages.common.serving.classifier import Classifier

DRIFTED = 3  # exit status of --fail-on-drift; 1 is an error, 2 a wrong command line
LEVELS = {"slight": VERDICTS[1:], "strong": VERDICTS[2:]}


def main(arguments: list[str] | None = None) -> int:
    """Predict, and say what came of it."""
    options = vars(_parser().parse_args(arguments))
    level = options.pop("fail_on_drift")

    def work() -> int:
        verdict = predict(Request(**options | {"keep": tuple(options["keep"])}))["drift"]["verdict"]
        return DRIFTED if level and verdict in LEVELS[level] else 0

    return exit_status(work, "interrupted; the same command goes on with it")


def predict(request: Request) -> dict[str, Any]:
    """Predict all rows; write output and report, and return the report.

    Raises:
        AttuneError: if input, output or model are not as they must be; finished parts stay for the next try.
    """
    output, report_path = request.output, request.report_path
    paths = [os.path.realpath(path) for path in (request.input, output, report_path)]
    if len(set(paths)) < len(paths):
        raise AttuneError("two of input, output and report are the same file", "name another output or report")
    _check_place(output)
    _check_place(report_path)
    with _disk_errors(), parts_folder(output) as folder:
        model = Model(request, folder)
        with request.open_input() as table:
            columns = Columns.of(request, table)
            parts = Parts(folder, [model.digest, model.variant, request.threshold, vars(columns)])
            paths_of_parts, counts = _predict_parts(request, table, columns, model, parts)
        report = model.report(counts)
        whole = parts.assemble(paths_of_parts, output)
        report_path.parent.mkdir(parents=True, exist_ok=True)
        aside = report_path.with_name(f".{report_path.name}.new")
        write_json(report, aside)
        os.replace(aside, report_path)
        os.replace(whole, output)
    _print_report(request, model.name, report)
    return report


class Model:
    """The model of a request, loaded when the first row needs it.

    Raises:
        AttuneError: if there is no such model, or it needs pairs of texts and gets none.
    """

    def __init__(self, request: Request, folder: Path) -> None:
        from stages.common.tracking.packaging import package_digest

        self.request = request
        self.package: Package
        self.package, self.name = find_package(request.model, folder / MODEL)
        self.digest = package_digest(self.package)  # of all that its answers depend on
        self.variant = request.variant or ("onnx" if "onnx" in self.package.variants else "torch")
        self.profile = profile_in(self.package)
        self.classifier: Classifier | None = None
        if self.profile and self.profile["pairs"] != bool(request.text_pair):
            raise AttuneError(
                f"{self.name} was trained on {'pairs of texts' if self.profile['pairs'] else 'single texts'}",
                "name the second text's column: --text-pair" if self.profile["pairs"] else "leave --text-pair out",
            )

    def answers(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Counts]:
        """Return PredictedRows for rows with id, text and text_pair, and what is counted of both."""
        if self.classifier is None:
            self.classifier = load(self.package, self.name, self.variant)
        rows = cleaned(rows, self.classifier)
        answers, probabilities, abstained = answer(self.classifier, rows, self.request.threshold)
        counts: Counts = {
            "rows": [rows.height],
            "empty": [rows["text"].null_count()],
            "abstained": [int(abstained.sum())],
        }
        if self.profile:
            counts |= text_counts(self.profile, rows) | answer_counts(self.profile, probabilities, abstained)
        return answers, counts

    def report(self, counts: Counts) -> dict[str, Any]:
        """Return what `OUTPUT.drift.json` says; nothing in it depends on when or where it was made."""
        threshold = self.request.threshold
        own = "--threshold is not the one that the model was made with"
        drift: dict[str, Any] = {
            "verdict": "unknown",
            "reason": "the model came without a profile of its training data, or with one of another version of Attune",
        }
        if self.profile:
            trained = {"trained_on_rows": self.profile["rows"], "trained_on_labels": self.profile["train_labels"]}
            left_out = {} if threshold is None else {"abstentions": own}
            drift = trained | drift_report(self.profile, counts, left_out)
        return {
            "rows": counts["rows"][0],
            "rows_without_text": counts["empty"][0],
            "rows_abstained": counts["abstained"][0],
            "model": self.digest,
            "variant": self.variant,
            "threshold": threshold,
            "drift": drift,
        }


def _predict_parts(
    request: Request, table: Table, columns: Columns, model: Model, parts: Parts
) -> tuple[list[Path], Counts]:
    """Predict the rows that no finished part holds; return all parts, and the counts of all rows."""
    if columns.text != request.text:
        print(f"the texts are in the column {shown(repr(columns.text), 80)}, as params.yaml says", flush=True)
    done, paths, counted = 0, [], Counts()
    with progress(table) as show:
        for number, chunk in enumerate(table.batches(columns.names, request.batch_rows)):
            if not number:
                if chunk.height:
                    columns.check(table)
                check_kept(chunk, columns.kept, table.origin, flat=request.output.suffix == ".csv")
            part = parts.path(number, chunk)
            counts = parts.counts(part)
            if counts is None:
                if not model.classifier:
                    if parts.is_stale(part):
                        print("input, model or options are not what they were last time", flush=True)
                    if done:
                        print(f"going on after row {done:,}, which an earlier run came to", flush=True)
                answers, counts = model.answers(to_predict(chunk, columns, done, table.origin))
                parts.write(part, with_kept(answers, chunk, columns.kept, table.origin), counts)
                show(done + chunk.height)
            paths.append(part)
            counted = added((counted, counts))
            done += chunk.height
    return paths, counted


def _check_place(path: Path) -> None:
    """Raise an AttuneError if no file can be written there."""
    if path.is_dir():
        raise AttuneError(f"{path} is a folder", "name a file in it")
    above = next((parent for parent in path.parents if parent.exists()), None)
    if above and not above.is_dir():
        raise AttuneError(f"{path}: {above} is no folder", "name a file in a folder")


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Report a full disk, or one that may not be written, without a traceback."""
    try:
        yield
    except (OSError, PolarsError) as error:
        if not (reason := of_the_disk(error)):
            raise
        raise AttuneError(
            f"stopped: {reason}", "what is finished stays; mend that, and the same command goes on with it"
        ) from None


def _print_report(request: Request, name: str, report: Mapping[str, Any]) -> None:
    console = Console(highlight=False, markup=False)
    console.print(visible(f"{report['rows']:,} rows predicted by {name}: {request.output}"), soft_wrap=True)
    unsure, empty = report["rows_abstained"], report["rows_without_text"]
    if unsure or empty:
        console.print(f"no label: {unsure:,} rows below the threshold, {empty:,} without a text")
    drift = report["drift"]
    if "measures" not in drift:
        console.print(f"drift: {drift['reason']}")
        return
    table = RichTable("measure", "verdict", title=f"Drift: {drift['verdict']}", title_justify="left")
    for column in ("PSI", "by chance up to"):
        table.add_column(column, justify="right")
    table.add_column("reason")
    for measure in drift["measures"]:
        cells = [f"{measure['psi']:.3f}", f"{measure['limit']:.3f}"]
        table.add_row(measure["measure"], measure["verdict"], *cells, Text(shown(measure["reason"], 120)))
    for what, reason in drift["not_compared"].items():
        table.add_row(what, "not compared", "", "", Text(reason))
    console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.predict", description="Predict the rows of a file or database: docs/prediction.md"
    )
    add = parser.add_argument
    add("input", help="CSV, TSV, JSON lines (also .gz, .bz2, .xz, .zst) or Parquet; a database as sql:VARIABLE")
    add("output", type=Path, help="a file that ends in .parquet, .csv or .jsonl")
    add("--model", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder (default: the champion of params.yaml)")
    add("--variant", choices=VARIANTS, help="form of the model (default: onnx if it was exported)")
    add("--text", default=Request.text, metavar="COLUMN", help="the texts (default: text, or as in params.yaml)")
    add("--text-pair", metavar="COLUMN", help="the second texts of pairs")
    add("--id", metavar="COLUMN", help="ids of the rows (default: their numbers, from 1)")
    add("--keep", action="append", default=[], metavar="COLUMN", help="copy a column to the output; may be repeated")
    add("--keep-all", action="store_true", help="copy all columns but that of --id")
    add("--separator", default=Request.separator, help="of a CSV file (default: ,)")
    add("--table", help="of the database")
    add("--query", help="one SELECT to the database")
    add("--threshold", type=float, help="abstain below this probability, instead of the model's own thresholds")
    rows = Request.batch_rows
    add("--batch-rows", type=int, default=rows, metavar="N", help=f"rows at a time (default: {rows})")
    add("--report", type=Path, metavar="FILE", help="where the drift report goes (default: OUTPUT.drift.json)")
    add(
        "--fail-on-drift",
        nargs="?",
        const="strong",
        choices=list(LEVELS),
        help=f"exit with {DRIFTED}, with everything written, when drift is strong (or slight already)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
