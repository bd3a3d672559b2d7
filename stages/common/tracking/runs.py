"""One MLflow run per trained model, found again by the digest of its inputs or of its weights.

Everything here may be called twice: what is recorded already is left as it is.
"""

import csv
import getpass
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.digests import sha256_path
from stages.common.graph import read_lock
from stages.common.params import Params
from stages.common.stage import WORK, write_json
from stages.common.tracking.flat import flatten
from stages.common.tracking.provenance import PATCH_TAG, is_origin, log_patch
from stages.common.tracking.store import experiment_id, quiet

if TYPE_CHECKING:
    from mlflow import MlflowClient

INPUTS_TAG = "attune.training_inputs"
MODEL_TAG = "attune.model"
POSITIONS = ("step", "epoch")  # columns that say where on a curve a point is; no scores of the model
TRAININGS = WORK / "trainings"
DATA_SETS = {"train": "training", "validation": "validation", "test": "test"}


def model_digest(folder: Path) -> str:
    """Return the name of a trained model: the SHA-256 of its folder's files."""
    return sha256_path(folder)


def find_run(client: "MlflowClient", params: Params, tag: str, value: str) -> str | None:
    """Return the id of the newest run of the experiment with this tag, if there is one."""
    with quiet():
        experiment = experiment_id(client, params.tracking.experiment_name)
        found = client.search_runs([experiment], filter_string=f"tags.`{tag}` = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def create_run(client: "MlflowClient", params: Params, tags: dict[str, str]) -> str:
    """Start a run with its params, data sets and tags (`origin_tags` among them); return its id."""
    with quiet():
        experiment = experiment_id(client, params.tracking.experiment_name)
        run = client.create_run(experiment, run_name=run_name(params), tags={**_who(), **tags})
        record_params(client, run.info.run_id, params)
        record_data_sets(client, run.info.run_id)
        log_patch(client, run.info.run_id, tags.get(PATCH_TAG, ""))
    return str(run.info.run_id)


def run_name(params: Params) -> str:
    """Return the run's name: the one in params, or one made of what tells runs apart."""
    if params.tracking.run_name:
        return params.tracking.run_name
    base = re.split("==|@", params.ingest.base_model.origin)[0].rpartition("/")[2]
    how = params.finetune
    return f"{how.strategy} lr={how.learning_rate:g} epochs={how.num_train_epochs} seed={params.seed} {base}"


def record_params(client: "MlflowClient", run_id: str, params: Params) -> None:
    """Record every parameter under its dotted name, in the order of params.yaml."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    new = [Param(key, value) for key, value in as_recorded(params).items() if key not in known]
    for start in range(0, len(new), 100):  # MLflow takes a hundred at a time
        client.log_batch(run_id, params=new[start : start + 100])


def as_recorded(params: Params) -> dict[str, str]:
    """Return what MLflow gets of params, by dotted name.

    Of sources and base model, what is not said is left out: of the kinds that there are, each is only one.
    """
    dumped = params.model_dump(mode="json", by_alias=True, exclude={"tracking", "tune", "review"})
    dumped["ingest"] = params.ingest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {key: str(value)[:6000] for key, value in flatten(dumped)}


def record_data_sets(client: "MlflowClient", run_id: str) -> None:
    """Record the three splits as data sets whose digest is the hash that DVC knows them by."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    outs = {out["path"]: out for out in read_lock().get("clean", {}).get("outs", [])}
    inputs = []
    for name, context in DATA_SETS.items():
        path = f"data/clean/{name}.parquet"
        if path in outs:
            source = json.dumps({"path": path, "md5": outs[path]["md5"]})
            profile = json.dumps({"bytes": outs[path].get("size")})
            data_set = Dataset(name, outs[path]["md5"], source_type="dvc", source=source, profile=profile)
            inputs.append(DatasetInput(data_set, [InputTag("mlflow.data.context", context)]))
    if inputs:
        client.log_inputs(run_id, inputs)


def record_curves(client: "MlflowClient", run_id: str, files: list[Path]) -> None:
    """Record the points of CSV curves (column `step` and one per metric) that the run does not have yet."""
    from mlflow.entities import Metric

    known: dict[str, set[int]] = {}
    new: list[Metric] = []
    time = client.get_run(run_id).info.start_time
    for file in files:
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                step = int(row.pop("step"))
                for key, value in row.items():
                    if key in POSITIONS:
                        continue
                    if key not in known:
                        known[key] = recorded_steps(client, run_id, key)
                    if step not in known[key] and value:
                        known[key].add(step)  # both curves have a column `epoch`
                        new.append(Metric(key, float(value), time, step))
    for start in range(0, len(new), 500):
        client.log_batch(run_id, metrics=new[start : start + 500])


def recorded_steps(client: "MlflowClient", run_id: str, key: str) -> set[int]:
    """Return the steps at which a run has a point of this metric."""
    return {point.step for point in client.get_metric_history(run_id, key)}


def record_metrics(client: "MlflowClient", run_id: str, metrics: dict[str, float]) -> None:
    """Record final scores; one that stands there with the same value is left alone."""
    known = client.get_run(run_id).data.metrics
    for key, value in metrics.items():
        if known.get(key) != value:
            client.log_metric(run_id, key, value)


def finish(client: "MlflowClient", run_id: str, tags: Mapping[str, str], results: Mapping[str, str]) -> None:
    """Tag a run and end it, unless that was done before.

    Args:
        client: of a store that answers.
        run_id: of the run.
        tags: of the training; what tells of its beginning stays as it was first set.
        results: tags that follow what the run shows, such as its scores.
    """
    run = client.get_run(run_id)
    for key, value in {**tags, **results}.items():
        known = run.data.tags.get(key)
        first = key not in results and is_origin(key) and known is not None
        if known != value and not first:
            client.set_tag(run_id, key, value)
            if key == PATCH_TAG:
                log_patch(client, run_id, value)
    if run.info.status != "FINISHED":
        client.set_terminated(run_id)


def keep_training_tags(model: str, tags: dict[str, str]) -> None:
    """Note on this machine what a training's run is tagged with, for a publishing that has to catch up.

    What tells of its beginning is noted once, as in MLflow: training the same model again changes none of it.
    """
    TRAININGS.mkdir(parents=True, exist_ok=True)
    began = {key: value for key, value in training_tags(model).items() if is_origin(key)}
    if began:
        tags = {**{key: value for key, value in tags.items() if not is_origin(key)}, **began}
    write_json(tags, TRAININGS / f"{model}.json")


def training_tags(model: str, root: Path = Path()) -> dict[str, str]:
    """Return the tags of the training that made a model, or none if it was not trained in this checkout."""
    path = root / TRAININGS / f"{model}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _who() -> dict[str, str]:
    """Return the tags by which MLflow's UI says who made a run, and with what."""
    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "attune"}
    try:
        return {"mlflow.user": getpass.getuser(), **tags}
    except (ImportError, KeyError, OSError):  # a container without a name for its user
        return tags
