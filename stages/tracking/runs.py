"""One MLflow run per trained model, found again by the digest of its inputs or of its weights.

Everything here may be called twice: what is recorded already is left as it is.
"""

import csv
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.digests import sha256_value
from stages.common.params import Params
from stages.common.pipeline.stage import WORK, write_json
from stages.tracking.provenance import PATCH_TAG, log_patch
from stages.tracking.store import experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

INPUTS_TAG = "attune.training_inputs"
MODEL_TAG = "attune.model"
POSITIONS = ("step", "epoch")  # what says where on a curve a point is; not metrics
VALIDATION = "validation_"  # what metrics begin with that are of the validation split
TRAININGS = WORK / "trainings"
SOURCE = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "attune"}  # what MLflow's UI shows as a run's source


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, plain value) of nested mappings and lists, in order."""
    if isinstance(value, dict) and value:
        for safe, inner in zip(_safe_names([*map(str, value)]), value.values(), strict=True):
            yield from flatten(inner, f"{prefix}.{safe}" if prefix else safe)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for number, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}.{number}")
    else:
        yield prefix, value


def _safe_names(keys: Sequence[str]) -> list[str]:
    """Return the keys as MLflow takes them; where two would be one, what is changed ends with a digest."""
    # MLflow takes 250 letters, digits and _ - . space : in a name (and /, but not at every place)
    names = ["".join(mark if mark.isalnum() or mark in "_-. :" else "_" for mark in key[:100]) for key in keys]
    counts = Counter(names)
    return [
        name if counts[name] == 1 or name == key else f"{name}-{sha256_value(key)[:6]}"
        for name, key in zip(names, keys, strict=True)
    ]


def find_run(client: "MlflowClient", params: Params, tag: str, value: str) -> str | None:
    """Return the id of the newest run of the experiment with this tag, if there is one."""
    experiment = experiment_id(client, params.tracking.experiment_name)
    newest = client.search_runs([experiment], filter_string=f"tags.`{tag}` = '{value}'", max_results=1)
    return str(newest[0].info.run_id) if newest else None


def create_run(client: "MlflowClient", params: Params, tags: Mapping[str, str], name: str = "") -> str:
    """Start a run with its params and tags (`origin_tags` among them), and a name of its own; return its id."""
    from mlflow.entities import Param

    experiment = experiment_id(client, params.tracking.experiment_name)
    own_tags = {**SOURCE, "mlflow.user": os.environ.get("USER") or "unknown"}
    base, how = re.split("==|@", params.ingest.base_model.origin)[0].rpartition("/")[2], params.finetune
    made = f"{how.strategy} lr={how.learning_rate:g} epochs={how.num_train_epochs} seed={params.seed} {base}"
    name = name or params.tracking.run_name or made  # of what usually differs between runs
    run_id = str(client.create_run(experiment, run_name=name, tags={**own_tags, **tags}).info.run_id)
    settings = params.model_dump(mode="json", by_alias=True, exclude={"tracking", "tune", "review"})
    # A source or base model is of one kind; the keys of the other kinds are left out.
    settings["ingest"] = params.ingest.model_dump(mode="json", by_alias=True, exclude_none=True)
    rows = [Param(key, str(value)[:6000]) for key, value in flatten(settings)]
    for start in range(0, len(rows), 100):  # MLflow takes a hundred at a time
        client.log_batch(run_id, params=rows[start : start + 100])
    log_patch(client, run_id, tags.get(PATCH_TAG, ""))
    return run_id


def run_of_model(client: "MlflowClient", params: Params, model: str, tags: Mapping[str, str]) -> str:
    """Return the one run of a model: the run that has it, else the one that its training began, else a new one."""
    begun = find_run(client, params, INPUTS_TAG, tags[INPUTS_TAG]) if INPUTS_TAG in tags else None
    if begun and MODEL_TAG in client.get_run(begun).data.tags:
        begun = None  # it has ended, perhaps with another model: other threads, other bytes
    known = find_run(client, params, MODEL_TAG, model)
    if known and begun:
        client.delete_run(begun)  # the model was published before, from its files
    return known or begun or create_run(client, params, tags)


class Curves:
    """Adds to a run's curves the points that they lack: an epoch that is trained again adds none."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._known: dict[str, set[int]] = {}  # steps of each metric

    def add(self, points: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Record points: a step, and the metrics there."""
        from mlflow.entities import Metric

        new, time_ms = [], int(1000 * time.time())
        for step, metrics in points:
            for key in (key for key in metrics if key not in POSITIONS):
                if key not in self._known:
                    history = self._client.get_metric_history(self._run_id, key)
                    self._known[key] = {point.step for point in history}
                if step not in self._known[key]:
                    self._known[key].add(step)
                    new.append(Metric(key, metrics[key], time_ms, step))
        for start in range(0, len(new), 500):
            self._client.log_batch(self._run_id, metrics=new[start : start + 500])


def record_curves(client: "MlflowClient", run_id: str, files: list[Path]) -> None:
    """Record the points of curves' files that the run does not have yet."""
    curves = Curves(client, run_id)
    for file in files:
        curves.add((int(point["step"]), point) for point in read_curve(file))


def read_curve(file: Path) -> list[dict[str, float]]:
    """Return the points of a curve's file: step, epoch and values by MLflow's names, as the live log has them."""
    prefix = VALIDATION if file.stem == "validation" else ""
    points: dict[str, dict[str, float]] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            point = points.setdefault(row["step"], {"step": int(row["step"]), "epoch": float(row["epoch"])})
            point[prefix + row["name"]] = float(row["value"])
    return [*points.values()]


def record_metrics(client: "MlflowClient", run_id: str, metrics: Mapping[str, float]) -> None:
    """Record final scores, but for those that the run has with the same value."""
    known = client.get_run(run_id).data.metrics
    for key, value in metrics.items():
        if known.get(key) != value:
            client.log_metric(run_id, key, value)


def finish(client: "MlflowClient", run_id: str, training: Mapping[str, str], results: Mapping[str, str]) -> None:
    """Tag a run and end it, unless that was done before.

    Tags of the `training` (how it began, what it ran on) stay as they were first set; those of `results` follow what
    the run shows, such as its model and scores.
    """
    run = client.get_run(run_id)
    known = run.data.tags
    for key, value in {**training, **known, **results}.items():
        if known.get(key) != value:
            client.set_tag(run_id, key, value)
            if key == PATCH_TAG:
                log_patch(client, run_id, value)
    if run.info.status != "FINISHED":
        client.set_terminated(run_id)


def keep_training_tags(model: str, tags: Mapping[str, str]) -> None:
    """Keep the tags of a training's run on this machine, for `make publish` to catch up with.

    Training the same model again changes none but that of the inputs, by which its run is found.
    """
    TRAININGS.mkdir(parents=True, exist_ok=True)
    write_json({**tags, **training_tags(model), INPUTS_TAG: tags[INPUTS_TAG]}, TRAININGS / f"{model}.json")


def training_tags(model: str, root: Path = Path()) -> dict[str, str]:
    """Return the tags of the training that made a model, or none if it was not trained in this checkout."""
    path = root / TRAININGS / f"{model}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
