"""`python -m stages.common.tracking.publish`: bring MLflow up to date with the files, for one trained model.

The files alone are read; doing it twice changes nothing.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.errors import AttuneError
from stages.common.graph import read_graph, read_lock, upstream_of
from stages.common.params import Params, check_params
from stages.common.params.loading import PARAMS_FILE, read_yaml
from stages.common.serving.classifier import Package
from stages.common.stage import Run
from stages.common.tracking.champions import Overtaken
from stages.common.tracking.flat import flatten
from stages.common.tracking.provenance import RECIPE_TAG, recipe_of, stage_tags
from stages.common.tracking.registry import (
    REGISTRATION,
    ChampionVerdicts,
    Registered,
    Registration,
    ensure_registered,
)
from stages.common.tracking.runs import (
    INPUTS_TAG,
    MODEL_TAG,
    create_run,
    find_run,
    finish,
    model_digest,
    record_curves,
    record_metrics,
    training_tags,
)
from stages.common.tracking.store import Unreachable, connect, quiet, tracking_uri, warn, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL = Path("models/finetuned")
CURVES = ("reports/plots/training.csv", "reports/plots/validation.csv")
METRICS = "reports/metrics.json"
REGISTERS = "register"
CARD = "reports/model_card.md"


def publish_run(
    client: "MlflowClient",
    params: Params,
    model: Path,
    reports: dict[str, Path],
    stages: Sequence[str] = (),
) -> str:
    """Record a trained model's curves, scores and reports in its run; return the run's id.

    Args:
        client: of a store that answers.
        params: those the model was trained with.
        model: the trained model's folder.
        reports: the files to keep with the run, by their path in the project.
        stages: that made it all, as far as `dvc.lock` tells of them by now.
    """
    digest = model_digest(model)
    tags = {**training_tags(digest), MODEL_TAG: digest}
    run_id = (
        find_run(client, params, MODEL_TAG, digest)
        or _run_broken_off(client, params, tags.get(INPUTS_TAG))
        # Which commit is checked out now says nothing of a training that nobody here has notes of.
        or create_run(client, params, {RECIPE_TAG: recipe_of(params), **tags})
    )
    with quiet():
        record_curves(client, run_id, [reports[curve] for curve in CURVES if curve in reports])
        if METRICS in reports:
            scores = flatten(json.loads(reports[METRICS].read_text(encoding="utf-8")))
            numbers = {f"test_{key}": float(value) for key, value in scores if isinstance(value, int | float)}
            record_metrics(
                client, run_id, numbers
            )  # a kind or a reason is no number, nor is what could not be measured
        for path, file in reports.items():
            client.log_artifact(run_id, str(file), Path(path).parent.as_posix())
        beginning, results = _stage_tags(stages)
        finish(client, run_id, {**beginning, **tags}, results)
    return run_id


def _stage_tags(stages: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the tags of stages up to the training, which stay, and of later ones, which go with the scores."""
    if not stages:
        return {}, {}
    graph, lock = read_graph(), read_lock()
    training = {"finetune", *upstream_of(graph["finetune"], graph)}
    before, after = ([name for name in stages if (name in training) is early] for early in (True, False))
    return stage_tags(before, lock), stage_tags(after, lock)


def _run_broken_off(client: "MlflowClient", params: Params, inputs: str | None) -> str | None:
    """Return the run that a training began and, the server being away, could not end."""
    run_id = find_run(client, params, INPUTS_TAG, inputs) if inputs else None
    return run_id if run_id and MODEL_TAG not in client.get_run(run_id).data.tags else None


def reports_up_to(stage: str | None = None, staging: Path | None = None) -> dict[str, Path]:
    """Return the reports of the stages up to `stage` (None: of all) that exist, by path; staged ones first."""
    found: dict[str, Path] = {}
    for node in read_graph().values():
        for out in filter(lambda out: out.startswith("reports/"), node.outs):
            staged = staging / out if staging else Path(out)
            if staged.exists() or Path(out).exists():
                found[out] = staged if staged.exists() else Path(out)
        if node.name == stage:
            break
    return found


def publish_live(
    run: Run[Any],
    model: Path,
    registration: Registration | None = None,
    beside: ChampionVerdicts | None = None,
    costs: dict[str, float] | None = None,
) -> Registered | None:
    """Publish from within a stage: a store that is away or broken costs a warning.

    Args:
        run: of the stage.
        model: the trained model's folder.
        registration: what its own gates said of it; None: it is not to be registered yet.
        beside: what the comparison with the champion said.
        costs: what the model costs on this machine, by name; metrics `cost_…`.

    Raises:
        Overtaken: if another model became champion meanwhile.
    """
    reports = reports_up_to(run.node.name, run.staging)
    try:
        client = connect()
        run_id = publish_run(client, run.all_params, model, reports, upstream_of(run.node, read_graph()))
        with quiet():
            record_metrics(client, run_id, {f"cost_{name}": value for name, value in (costs or {}).items()})
        if registration:
            return ensure_registered(client, registration, run_id, Package.of_project(), reports[CARD], beside, reports)
    except Overtaken:
        raise
    except Exception as error:  # MLflow's troubles must not cost a result
        warn(error)
    return None


def trained_params() -> Params:
    """Return the params of the last pipeline run as `dvc.lock` keeps them, so that later edits do not count.

    Raises:
        AttuneError: if the pipeline has not run yet.
    """
    sections: dict[str, Any] = {}  # of the stages that have run; those that have not yet stand in params.yaml
    for stage in read_lock().values():
        sections.update(stage.get("params", {}).get("params.yaml", {}))
    if "finetune" not in sections:
        raise AttuneError("there is no trained model yet", "run the pipeline first: make run")
    now = read_yaml(PARAMS_FILE)
    sections["tracking"] = now.get("tracking", {})
    return check_params({**now, **sections}, "dvc.lock")


def _stages_of(model: Path, reports: dict[str, Path]) -> list[str]:
    """Return the stages that made a model and its scores, if these are of this model: else `dvc.lock` is not, too."""
    scores = json.loads(reports[METRICS].read_text(encoding="utf-8")) if METRICS in reports else {}
    graph = read_graph()
    of_model = scores.get("model", {}).get("digest") == model_digest(model)
    return upstream_of(graph[REGISTERS], graph) if of_model and REGISTERS in graph else []


def main() -> int:
    """Publish the model that lies in models/finetuned with all its reports."""
    try:
        params = trained_params()
        if not MODEL.exists():
            raise AttuneError(f"{MODEL} is missing", "run the pipeline first, or fetch it: dvc pull, dvc checkout")
        client = connect()
        reports = reports_up_to()
        run_id = publish_run(client, params, MODEL, reports, _stages_of(MODEL, reports))
        print(f"run {run_id} is up to date in {without_password(tracking_uri())}")
        if REGISTRATION.exists():
            registration = Registration.read()
            package = Package.of_project()
            found = ensure_registered(client, registration, run_id, package, reports[CARD], reports=reports)
            name = f"model {registration.model_name} version {found.version}"
            print(f"{name} is registered{f' as {found.alias}' if found.alias else ''}")
            if found.alias is None:
                print("another model is champion there: make register judges this one beside it")
    except Unreachable as error:
        print(f"MLflow cannot be reached: {error}\n  → start the server, or unset MLFLOW_TRACKING_URI", file=sys.stderr)
        return 1
    except AttuneError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:  # whatever is wrong over there, it is no fault of this program
        warn(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
