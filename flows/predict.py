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
from typing import Any

from polars.exceptions import PolarsError
from rich.console import Console

from flows.command import exit_status
from flows.prediction.drift import VERDICTS, drift_table
from flows.prediction.parts import parts_of
from flows.prediction.rows import open_source, table_query
from flows.prediction.source import Wanted
from flows.prediction.work import Request, Work
from stages.common.errors import AttuneError
from stages.common.serving.classifier import VARIANTS
from stages.common.shown import visible
from stages.common.stage import of_the_disk, write_json

DRIFTED = 3  # exit status of --fail-on-drift; 1 is an error, 2 a wrong command line
LEVELS = {"slight": VERDICTS[1:], "strong": VERDICTS[2:]}
MOST_ROWS = 1_000_000  # of a chunk


def main(arguments: list[str] | None = None) -> int:
    """Predict, and say what came of it."""
    asked = vars(_parser().parse_args(arguments))
    level = asked.pop("fail_on_drift")

    def work() -> int:
        verdict = predict(make_request(**asked))["drift"]["verdict"]
        return DRIFTED if level and verdict in LEVELS[level] else 0

    return exit_status(work, "interrupted; the same command goes on with it")


def make_request(
    input: str,
    output: str | Path,
    *,
    table: str | None = None,
    query: str | None = None,
    keep: list[str] | tuple[str, ...] = (),
    batch_rows: int = Wanted.size,
    report: str | Path | None = None,
    model: str | None = None,
    variant: Any = None,
    threshold: float | None = None,
    **columns: Any,
) -> Request:
    """Return what the options of the command line ask for; `columns` are the further fields of `Wanted`.

    Raises:
        AttuneError: if they make no sense.
    """
    if table and query:
        raise AttuneError("--table and --query are both given", "leave one of them out")
    if threshold is not None and not 0 <= threshold <= 1:
        raise AttuneError(f"--threshold is {threshold}", "write a probability, from 0 to 1")
    if not 1 <= batch_rows <= MOST_ROWS:
        raise AttuneError(f"--batch-rows is {batch_rows}", f"write a number from 1 to {MOST_ROWS:,}")
    if len(columns.get("separator", ",")) != 1:
        raise AttuneError(f"--separator is {columns['separator']!r}", "write one character")
    asked = table_query(table) if table else checked_query(query) if query else ""
    columns["text_else"] = _text_of_params() if columns.get("text", Wanted.text) == Wanted.text else None
    wanted = Wanted(keep=tuple(dict.fromkeys(keep)), query=asked, size=batch_rows, **columns)
    return Request(input, Path(output), wanted, model, variant, threshold, Path(report) if report else None)


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
    with _disk_told(), parts_of(output) as parts:
        work = Work.begin(request, parts)
        with open_source(request.input, request.wanted) as source:
            count, report = work.run(source)
        whole = parts.assemble(count, output)
        report_path.parent.mkdir(parents=True, exist_ok=True)
        aside = report_path.with_name(f".{report_path.name}.new")
        write_json(report, aside)
        os.replace(aside, report_path)
        os.replace(whole, output)
    _tell(request, work.name, report)
    return report


def _check_place(path: Path) -> None:
    """Raise an AttuneError if no file can be written there."""
    if path.is_dir():
        raise AttuneError(f"{path} is a folder", "name a file in it")
    above = next((parent for parent in path.parents if parent.exists()), None)
    if above and not above.is_dir():
        raise AttuneError(f"{path}: {above} is no folder", "name a file in a folder")


@contextmanager
def _disk_told() -> Iterator[None]:
    """Tell of a full disk, or one that may not be written, without a trace."""
    try:
        yield
    except (OSError, PolarsError) as error:
        if not (reason := of_the_disk(error)):
            raise
        raise AttuneError(
            f"stopped: {reason}", "what is finished stays; mend that, and the same command goes on with it"
        ) from None


def _text_of_params() -> str | None:
    """Return which column held the texts that params.yaml trains with, if it has one source with columns."""
    from stages.common.params import load_params

    try:
        sources = load_params().ingest.sources
    except (AttuneError, OSError):
        return None
    columns = getattr(sources[0], "columns", None) if len(sources) == 1 else None
    return columns.text if columns else None


def checked_query(query: str) -> str:
    """Return a query that is one SELECT.

    Raises:
        AttuneError: if it is not.
    """
    from pydantic import TypeAdapter, ValidationError

    from stages.common.params.places import Select

    try:
        return str(TypeAdapter(Select).validate_python(query))
    except ValidationError as error:
        raise AttuneError(f"--query {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _tell(request: Request, name: str, report: Mapping[str, Any]) -> None:
    console = Console(highlight=False, markup=False)
    told = f"{report['rows']:,} rows predicted by {name}: {request.output}"
    console.print(visible(told), soft_wrap=True)
    unsure, empty = report["rows_abstained"], report["rows_without_text"]
    if unsure or empty:
        console.print(f"no label: {unsure:,} rows below the threshold, {empty:,} without a text")
    if "measures" in report["drift"]:
        console.print(drift_table(report["drift"]))
    else:
        console.print(f"drift: {report['drift']['reason']}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.predict", description="Predict the rows of a file or database: docs/prediction.md"
    )
    add = parser.add_argument
    add("input", help="CSV, TSV, JSON lines (also .gz, .bz2, .zst) or Parquet; a database as sql:VARIABLE")
    add("output", type=Path, help="a file that ends in .parquet, .csv or .jsonl")
    add("--model", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder (default: the champion of params.yaml)")
    add("--variant", choices=VARIANTS, help="form of the model (default: onnx if it was exported)")
    add("--text", default=Wanted.text, metavar="COLUMN", help="the texts (default: text, or as in params.yaml)")
    add("--text-pair", metavar="COLUMN", help="the second texts of pairs")
    add("--id", metavar="COLUMN", help="ids of the rows (default: their numbers, from 1)")
    add("--keep", action="append", default=[], metavar="COLUMN", help="copy a column to the output; may be repeated")
    add("--keep-all", action="store_true", help="copy all columns but that of --id")
    add("--separator", default=Wanted.separator, help="of a CSV file (default: ,)")
    add("--table", help="of the database")
    add("--query", help="one SELECT to the database")
    add("--threshold", type=float, help="abstain below this probability, instead of the model's own thresholds")
    add("--batch-rows", type=int, default=Wanted.size, metavar="N", help=f"rows at a time (default: {Wanted.size})")
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
