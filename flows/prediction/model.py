"""The model to predict with, out of the registry or a folder (nothing that comes with it is run), and its answers."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flows.model_versions.versions import asking_mlflow
from flows.prediction.request import Request
from stages.common.drift import FILE, VERSION, Counts, answer_counts, drift_report, text_counts
from stages.common.errors import AttuneError
from stages.common.params import PARAMS_FILE, load_params
from stages.serving.answers import TOO_HIGH, blank, too_high
from stages.serving.backends import Package, Predictor
from stages.tasks.base import Refused
from stages.tracking.store import connect, reason_of

REGISTERED = "models:/"
# of columns that may be null in all of a part, or have no row
TYPES: dict[str, Any] = {"string": pl.String, "double": pl.Float64, "boolean": pl.Boolean}


class Model:
    """The model of a request, and what its training data looked like; a registered one is copied into `folder`.

    Raises:
        AttuneError: if there is no such model, it cannot be read, or it needs pairs of texts and gets none.
    """

    def __init__(self, request: Request, folder: Path) -> None:
        from stages.tracking.package import package_digest

        package, self.name = _find_package(request.model, folder)
        self.digest = package_digest(package)  # of all that its answers depend on
        self.request = request
        file = (package.serving or folder) / FILE
        profile = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self.profile = profile if profile.get("version") == VERSION else None
        if self.profile and self.profile["pairs"] != bool(request.text_pair):
            what, fix = ("pairs of", "name the second text's") if self.profile["pairs"] else ("single", "leave out the")
            raise AttuneError(f"{self.name} was trained on {what} texts", f"{fix} column: --text-pair")
        try:
            self.predictor = Predictor(package, request.variant)
        except Exception as error:  # onnxruntime, safetensors and tokenizers each have kinds of their own
            raise AttuneError(
                f"{self.name} cannot be read{f' as {request.variant}' if request.variant else ''}: {reason_of(error)}",
                "make it again (`make run`) or copy it again, or name another --variant or --model",
            ) from None
        if too_high(request.threshold, self.predictor.task):
            raise AttuneError(f"--threshold {request.threshold}: {TOO_HIGH}", "docs/prediction.md says what it may be")

    def answers(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Counts]:
        """Return the answers to rows with id, text and text_pair, and what is counted of both.

        A row for each: id, then the columns of the task's `table`, `abstained` among them; all of them null but that
        one where there is nothing to see in the text.
        """
        try:
            return self._answers(rows)
        except Refused:
            for id, text in rows.select("id", "text").drop_nulls("text").iter_rows():
                try:
                    self.predictor.tokens.encode(self._prepared(pl.Series([text])).to_list(), None)
                except Refused as refusal:
                    raise AttuneError(f"the row {id} cannot be read: {refusal}", "mend it, or leave it out") from None
            raise

    def _answers(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Counts]:
        predictor, task = self.predictor, self.predictor.task
        rows = rows.with_columns(self._prepared(rows[name]) for name in ("text", "text_pair"))
        has_text = pl.Series([text is not None and not blank(text) for text in rows["text"]], dtype=pl.Boolean)
        rows = rows.with_columns(text=pl.when(has_text).then("text"))
        readable = rows.filter(has_text)
        pairs = readable["text_pair"].fill_null("").to_list() if self.request.text_pair else None
        outputs = predictor.outputs(readable["text"].to_list(), pairs)
        if not np.isfinite(outputs).all():
            raise AttuneError("the model answers with something that is no number", "train and register it again")
        replies = task.replies(predictor, readable["text"].to_list())
        columns = task.table(outputs, predictor.decision, self.request.threshold)
        columns = {"row": has_text.arg_true(), **replies, **columns}
        types = {name: TYPES.get(kind.rstrip("?")) for name, kind in task.signature.items() if name in columns}
        table = pl.DataFrame(columns, schema_overrides={name: kind for name, kind in types.items() if kind})
        abstained = table["abstained"].to_numpy()
        answers = rows.select("id").with_row_index("row").join(table, on="row", how="left", maintain_order="left")
        empty = int((~has_text).sum())
        counts: Counts = {"rows": [rows.height], "empty": [empty], "abstained": [int(abstained.sum())]}
        if self.profile:
            values = task.drift_values(outputs, predictor.decision)
            known = rows.with_columns(task.profiled(rows["text"]))
            counts |= text_counts(self.profile, known) | answer_counts(self.profile, values, abstained)
        return answers.drop("row").with_columns(pl.col("abstained").fill_null(value=True)), counts

    def _prepared(self, texts: pl.Series) -> pl.Series:
        """Return texts as the training data were cleaned, null where there is none."""
        there = texts.is_not_null()
        if not self.predictor.cleaning:
            return texts
        prepared = self.predictor.task.prepared(texts.filter(there).to_list(), self.predictor.cleaning)
        return texts.clone().scatter(there.arg_true(), prepared) if prepared else texts

    def report(self, counts: Counts) -> dict[str, Any]:
        """Return what `OUTPUT.drift.json` says; nothing in it depends on when or where it was made."""
        drift: dict[str, Any] = {"verdict": "unknown"}  # no profile came with the model, or that of another version
        if self.profile:
            if self.request.threshold is not None:  # not the one that the model was made with
                counts = counts | {"abstentions": []}
            drift = drift_report(self.profile, counts) | {"trained_on_rows": self.profile["rows"]}
        return {
            "rows": counts["rows"][0],
            "rows_without_text": counts["empty"][0],
            "rows_abstained": counts["abstained"][0],
            "model": self.digest,
            "variant": self.predictor.variant,
            "threshold": self.request.threshold,
            "drift": drift,
        }


def text_columns(model: str | None) -> list[str]:
    """Return the columns that a model's training read texts from, as far as its run or its folder's params tell."""
    try:
        name, which = _named(model)
        if not which:
            sources = load_params(Path(name).resolve().parent / PARAMS_FILE).ingest.sources
            return [source.columns.text for source in sources if source.columns.text]
        from stages.tracking.package import find_version

        client = connect()
        logged = client.get_run(str(find_version(client, name, which).run_id)).data.params
    except Exception:  # what is wrong with the model is said where it is opened
        return []
    return [logged[key] for key in sorted(logged) if re.fullmatch(r"ingest\.sources\.\d+\.columns\.text", key)]


def _named(model: str | None) -> tuple[str, str]:
    """Return name and alias or version of a registered model (None: the champion of params), or a folder and ""."""
    if model and not model.startswith(REGISTERED):
        return model, ""
    model = model or f"{load_params().register_.model_name}@champion"
    name, _, which = model.removeprefix(REGISTERED).replace("@", "/").rpartition("/")
    return name, which


def _find_package(model: str | None, folder: Path) -> tuple[Package, str]:
    """Return the parts of a model, copied into a folder if it is a registered one, and its name for people."""
    name, which = _named(model)
    if not which:
        for part in ("model", "finetuned"):
            if (Path(name) / part / "config.json").exists():
                return Package.within(Path(name), part), name
        fix = f"name models/ after `make run`, a folder with model/ in it, or {REGISTERED}NAME@champion"
        raise AttuneError(f"{model} holds no model", fix)
    model = model or f"{REGISTERED}{name}@{which}"
    fix = f"write {REGISTERED}NAME@ALIAS or {REGISTERED}NAME/VERSION; `make run` registers one; MLFLOW_TRACKING_URI "
    with asking_mlflow(f"{fix}says where to look; or name a folder: --model models/", f"{model} cannot be fetched"):
        connect()
        from stages.tracking.package import fetch_package

        return fetch_package(name, which, folder), model
