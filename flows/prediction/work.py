"""Chunk after chunk: taken from a finished part, or predicted now; and what the report says of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from flows.prediction.answers import answer, check_kept, cleaned, to_predict, with_kept
from flows.prediction.drift import drift_report
from flows.prediction.model import find_package, load, profile_in
from flows.prediction.parts import MODEL, Parts, digest_of
from flows.prediction.progress import progress
from flows.prediction.source import Source, Wanted
from stages.common.errors import AttuneError
from stages.common.profile import Counts, added, answer_counts, text_counts
from stages.common.serving.classifier import Package, Variant
from stages.common.shown import shown

if TYPE_CHECKING:
    from stages.common.serving.classifier import Classifier


@dataclass(frozen=True)
class Request:
    """What is to be predicted, with what, and where to.

    Args:
        input: a file, or `sql:VARIABLE`.
        output: .parquet, .csv or .jsonl.
        wanted: columns of the input.
        model: see `find_package`.
        variant: form of the model; None: ONNX where there is one.
        threshold: of every label, instead of the model's own.
        report: where the report goes; None: OUTPUT.drift.json.
    """

    input: str
    output: Path
    wanted: Wanted = field(default_factory=Wanted)
    model: str | None = None
    variant: Variant | None = None
    threshold: float | None = None
    report: Path | None = None

    @property
    def report_path(self) -> Path:
        """Where the report goes."""
        return self.report or self.output.with_name(f"{self.output.name}.drift.json")


@dataclass
class Work:
    """The model of a request, loaded when the first row needs it, and the parts that are finished."""

    request: Request
    parts: Parts
    package: Package
    name: str  # of the model, for people
    digest: str  # of all that its answers depend on
    profile: Mapping[str, Any] | None
    classifier: "Classifier | None" = None

    @property
    def variant(self) -> Variant:
        """The form of the model: as asked, or ONNX where there is one."""
        return self.request.variant or ("onnx" if "onnx" in self.package.variants else "torch")

    @classmethod
    def begin(cls, request: Request, parts: Parts) -> "Work":
        """Find the model, and forget parts that are of another or were made with other options.

        Raises:
            AttuneError: if there is no such model, or it wants pairs of texts and gets none.
        """
        from stages.common.tracking.packaging import package_digest

        package, name = find_package(request.model, parts.folder / MODEL)
        work = cls(request, parts, package, name, package_digest(package), profile_in(package))
        if work.profile and work.profile["pairs"] != bool(request.wanted.text_pair):
            raise AttuneError(
                f"{name} was trained on {'pairs of texts' if work.profile['pairs'] else 'single texts'}",
                "name the second text's column: --text-pair" if work.profile["pairs"] else "leave --text-pair out",
            )
        wanted = request.wanted
        columns = [
            wanted.text,
            wanted.text_else,
            wanted.text_pair,
            wanted.id,
            wanted.separator,
            *wanted.keep,
            wanted.keep_all,
        ]
        made_with = {
            "model": work.digest,
            "variant": work.variant,
            "threshold": request.threshold,
            "batch_rows": wanted.size,
            "columns": columns,
        }
        if changed := parts.begin(made_with):
            print(f"{changed.replace('_', ' ')}: not what it was last time, so all rows are predicted anew", flush=True)
        return work

    def run(self, source: Source) -> tuple[int, dict[str, Any]]:
        """Predict what no finished part holds; return how many parts there are, and the report.

        Raises:
            AttuneError: if a row is damaged, or the model does not answer.
        """
        done, anew, counted = 0, False, []
        with progress(source) as show:
            for number, chunk in enumerate(source.chunks):
                if number and chunk.is_empty():
                    break  # the rows came out even
                if not number:
                    if (texts := self.request.wanted.text_in(chunk.columns)) != self.request.wanted.text:
                        print(f"the texts are in the column {shown(repr(texts), 80)}, as params.yaml says", flush=True)
                    check_kept(chunk, self._kept(source), source.origin, flat=self.request.output.suffix == ".csv")
                digest = digest_of(chunk)
                counts = self.parts.kept(number, digest)
                if counts is None:
                    left = None if anew else self.parts.left(number)
                    if left == "damaged":
                        print(f"the part from row {done + 1:,} on is damaged and predicted anew", flush=True)
                    elif left:
                        anew = True
                        print(f"the input is not what it was last time from row {done + 1:,} on", flush=True)
                    elif done and not self.classifier:
                        print(f"going on after row {done:,}, which an earlier run came to", flush=True)
                    rows, counts = self._predicted(source, chunk, done)
                    self.parts.write(number, digest, rows, counts)
                    show(done + chunk.height, chunk.height)
                counted.append(counts)
                done += chunk.height
        return len(counted), self._report(added(counted))

    def _predicted(self, source: Source, chunk: pl.DataFrame, before: int) -> tuple[pl.DataFrame, Counts]:
        request, wanted = self.request, self.request.wanted
        rows = to_predict(chunk, wanted, before, source.origin)
        if self.classifier is None:
            self.classifier = load(self.package, self.name, self.variant)
        rows = cleaned(rows, self.classifier)
        answers, probabilities, abstained = answer(self.classifier, rows, request.threshold)
        counts: Counts = {
            "rows": [rows.height],
            "empty": [rows["text"].null_count()],
            "abstained": [int(abstained.sum())],
        }
        if self.profile:
            counts |= text_counts(self.profile, rows) | answer_counts(self.profile, probabilities, abstained)
        return with_kept(answers, chunk, self._kept(source), source.origin), counts

    def _kept(self, source: Source) -> list[str]:
        return self.request.wanted.kept(source)

    def _report(self, counts: Counts) -> dict[str, Any]:
        """Return what `OUTPUT.drift.json` says; nothing in it depends on when or where it was made."""
        left_out = {}
        if self.request.threshold is not None:
            left_out["abstentions"] = "--threshold is not the one that the model was made with"
        drift = drift_report(self.profile, counts, left_out) if self.profile else None
        return {
            "rows": counts["rows"][0],
            "rows_without_text": counts["empty"][0],
            "rows_abstained": counts["abstained"][0],
            "model": self.digest,
            "variant": self.variant,
            "threshold": self.request.threshold,
            "drift": drift or {"verdict": "unknown", "reason": "the model came without a profile of its training data"},
        }
