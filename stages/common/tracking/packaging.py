"""A trained model as MLflow keeps it: its parts, and the code that serves them."""

import shutil
import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.digests import sha256_path, sha256_value
from stages.common.serving.classifier import Package
from stages.common.tracking.runs import MODEL_TAG, model_digest
from stages.common.tracking.store import quiet
from stages.tasks.loading import adapter_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from stages.common.tracking.registry import Registration

SEEN = ("data/augmented/train.parquet", "data/clean/validation.parquet")
SEEN_IDS = "data/seen_ids.parquet"  # among the run's artifacts: what no later test may count on this model's side
PACKAGE_TAG = "attune.package"  # of a version: digest of all its parts, of which attune.model is one
PARTS = ("model", "exported", "serving")
STAGES = Path(__file__).parents[2]
SERVED = "common/serving/served.py"
CODE = (  # what it imports
    *("__init__.py", "common/__init__.py", "tasks/__init__.py", "tasks/loading.py"),
    *(f"common/serving/{name}.py" for name in ("__init__", "answers", "classifier", "decision", "tokens")),
)
CONFIG = {"variant": None, "threads": None}  # what SERVING_MODEL_CONFIG may set
EXAMPLE = ["A film that stays with you.", "Two hours I will not get back."]


def fetch_seen_ids(client: "MlflowClient", version: Any, folder: Path) -> set[str]:
    """Return the ids of the rows that a registered model was trained or selected on (none if it kept no list)."""
    import polars as pl
    from mlflow.artifacts import download_artifacts

    with quiet():
        kept = {item.path for item in client.list_artifacts(version.run_id, str(Path(SEEN_IDS).parent))}
        if SEEN_IDS not in kept:
            return set()
        file = download_artifacts(run_id=version.run_id, artifact_path=SEEN_IDS, dst_path=str(folder))
    return set(pl.read_parquet(file)["id"])


def fetch_package(name: str, which: str, folder: Path) -> Package:
    """Copy a registered model's parts into a folder. Nothing of what is fetched is run.

    Args:
        name: of the registered model.
        which: an alias, or the number of a version.
        folder: where to.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    uri = f"models:/{name}/{which}" if which.isdigit() else f"models:/{name}@{which}"
    with quiet():
        downloaded = Path(download_artifacts(uri, dst_path=str(folder / "artifacts")))
    logged = Model.load(str(downloaded)).flavors["python_function"].get("artifacts", {})
    if logged:
        parts = {name: downloaded / part["path"] for name, part in logged.items()}
        return Package(parts["model"], parts.get("exported"), parts.get("serving"))
    model = folder / "model"  # an earlier version: in MLflow's flavour for transformers
    shutil.copytree(downloaded / "model", model)
    shutil.copytree(downloaded / "components" / "tokenizer", model, dirs_exist_ok=True)
    return Package(model)


def fetch_model(name: str, which: str, folder: Path) -> Path:
    """Copy a registered model into a folder, and return that of its weights and tokenizer."""
    return fetch_package(name, which, folder).model


def package_digest(package: Package) -> str:
    """Return the digest of all that answers depend on: thresholds may change where weights do not."""
    return sha256_value([sha256_path(part) if part else None for part in _parts(package).values()])


def log_and_register(
    client: "MlflowClient", registration: "Registration", run_id: str, package: Package, card: Path
) -> int:
    """Log a model with all its parts in MLflow, and make it a version of the registered model."""
    import mlflow
    import polars as pl
    from mlflow.exceptions import MlflowException

    digest = model_digest(package.model)
    if digest != registration.model:
        raise ValueError(f"{package.model} is not the model of reports/registration.json: run dvc repro")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(SEEN_IDS).name
        pl.concat([pl.read_parquet(seen, columns=["id"]) for seen in SEEN]).write_parquet(file, compression="zstd")
        client.log_artifact(run_id, str(file), str(Path(SEEN_IDS).parent))
    with quiet(), mlflow.start_run(run_id=run_id):
        logged = _log(package, card)
        try:
            client.create_registered_model(registration.model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = client.create_model_version(
            registration.model_name,
            source=logged.model_uri,
            run_id=run_id,
            model_id=logged.model_id,
            tags={MODEL_TAG: digest, PACKAGE_TAG: package_digest(package)},
            description=card.read_text(encoding="utf-8")[:5000],
        )
    return int(version.version)


def _log(package: Package, card: Path) -> Any:
    """Log the model as Python that MLflow runs when it is served: its source, no pickle of it."""
    import mlflow

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in CODE:
            (folder / "stages" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(STAGES / path, folder / "stages" / path)
        parts = {name: str(part) for name, part in _parts(package).items() if part}
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(STAGES / SERVED),
            artifacts={**parts, "card": str(card)},
            code_paths=[str(folder / "stages")],
            signature=_signature(),
            input_example=EXAMPLE,
            model_config=CONFIG,
            pip_requirements=_pinned(package),
        )


def _parts(package: Package) -> dict[str, Path | None]:
    """Return the folders of a package by name; None: it has no such part, or an empty one."""
    folders = dict(zip(PARTS, (package.model, package.exported, package.serving), strict=True))
    return {name: folder if folder and any(folder.iterdir()) else None for name, folder in folders.items()}


def _signature() -> Any:
    """Return what MLflow shows of params and answers.

    Of the texts it says nothing: it would hand them over as an array of texts, nulls and numbers among them.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Map

    answers = Schema(
        [
            ColSpec(DataType.string, "label", required=False),
            ColSpec(DataType.double, "score"),
            ColSpec(DataType.boolean, "abstained"),
            ColSpec(Map(DataType.double), "probabilities"),
        ]
    )
    params = ParamSchema([ParamSpec("top_k", DataType.long, None), ParamSpec("threshold", DataType.double, None)])
    return ModelSignature(outputs=answers, params=params)


def _pinned(package: Package) -> list[str]:
    wanted = ["mlflow", "torch", "transformers"]
    if len(package.variants) > 1:
        wanted.append("onnxruntime")
    if adapter_of(package.model):
        wanted.append("peft")
    return [f"{name}=={installed(name).partition('+')[0]}" for name in wanted]  # 2.13.0+cpu is on no index
