"""`python -m stages.tracking.publish`: bring MLflow up to date with the files, for one trained model.

The files alone are read; doing it twice changes nothing.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from stages.common.digests import sha256_path
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params
from stages.common.pipeline.graph import read_graph, read_lock
from stages.common.pipeline.stage import Run
from stages.common.redact import redacted
from stages.serving.backends import Package
from stages.tracking.provenance import SCORES, keep_lineage, recorded_params, stage_tags, stages_that_made
from stages.tracking.registry import (
    REGISTRATION,
    ChampionComparison,
    Overtaken,
    Registration,
    RegistryState,
    ensure_registered,
)
from stages.tracking.runs import MODEL_TAG, finish, flatten, record_curves, record_metrics, run_of_model, training_tags
from stages.tracking.store import connect, tracking_uri, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL = Path("models/finetuned")
CURVES = ("reports/plots/training.csv", "reports/plots/validation.csv")
CARD = "reports/model_card.md"


def publish_run(client: "MlflowClient", params: Params, model: Path, reports: dict[str, Path]) -> str:
    """Record a model's curves, scores and reports (by path) in the run of its training; return the run's id."""
    digest = sha256_path(model)
    tags = training_tags(digest)  # of a training that nobody here has noted, the commit is not known
    run_id = run_of_model(client, params, digest, tags)
    record_curves(client, run_id, [reports[curve] for curve in CURVES if curve in reports])
    if SCORES in reports:
        scores = flatten(json.loads(reports[SCORES].read_text(encoding="utf-8")))  # a reason is no number
        numbers = {f"test_{key}": float(value) for key, value in scores if isinstance(value, int | float)}
        record_metrics(client, run_id, numbers)
    for path, file in reports.items():
        client.log_artifact(run_id, str(file), Path(path).parent.as_posix())
    finish(client, run_id, tags, {MODEL_TAG: digest, **stage_tags(stages_that_made(digest, reports), read_lock())})
    return run_id


def reports_up_to(stage: str | None = None, staging: Path | None = None) -> dict[str, Path]:
    """Return the reports of the stages up to `stage` (None: of all) that exist, by path; staged ones first."""
    reports = {}
    for node in read_graph().values():
        for out in node.outs:
            files = [*([staging / out] if staging else []), Path(out)]
            if out.startswith("reports/") and (file := next(filter(Path.exists, files), None)):
                reports[out] = file
        if node.name == stage:
            break
    return reports


def publish_live(
    run: Run[Any],
    model: Path,
    registration: Registration | None = None,
    comparison: ChampionComparison | None = None,
    costs: dict[str, float] | None = None,
) -> RegistryState | None:
    """Publish from within a stage: a store that is away or broken costs a warning.

    Without a registration, the model is not registered yet. What it `costs` on this machine become metrics `cost_…`.
    Overtaken is raised if another model became champion meanwhile.
    """
    reports = reports_up_to(run.node.name, run.staging)
    try:
        client = connect()
        run_id = publish_run(client, run.all_params, model, reports)
        record_metrics(client, run_id, {f"cost_{name}": value for name, value in (costs or {}).items()})
        if registration:
            state = ensure_registered(client, registration, run_id, Package.of_project(), reports[CARD], comparison)
            keep_lineage(client, registration.model_name, state.version, registration.model, reports)
            return state
    except Overtaken:
        raise
    except Exception as error:  # MLflow's troubles must not cost a result
        warn(error)
    return None


def main() -> int:
    """Publish the model that lies in models/finetuned with all its reports."""
    try:
        if not MODEL.exists() or "finetune" not in read_lock():
            raise AttuneError(f"{MODEL} is missing", "make it: make run; or fetch it: .venv/bin/dvc pull")
        # As `dvc.lock` has them: of the run that trained the model, whatever was edited since.
        params = check_params(YAML(typ="safe", pure=True).load(recorded_params()), "dvc.lock")
        client, reports = connect(), reports_up_to()
        run_id = publish_run(client, params, MODEL, reports)
        print(f"run {run_id} is up to date in {redacted(tracking_uri())}")
        if REGISTRATION.exists():
            registration = Registration.read()
            state = ensure_registered(client, registration, run_id, Package.of_project(), reports[CARD])
            keep_lineage(client, registration.model_name, state.version, registration.model, reports)
            alias = state.alias or "no champion, since another one is: make register judges it beside that one"
            print(f"model {registration.model_name} version {state.version} is registered as {alias}")
    except AttuneError as error:
        print(error, file=sys.stderr)
    except Exception as error:  # whatever is wrong over there, it is no fault of this program
        warn(error, "start the server, or unset MLFLOW_TRACKING_URI, and repeat this")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
