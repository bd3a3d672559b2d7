"""A trained model as MLflow keeps it: its parts, and the code that serves them."""

import shutil
import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.digests import sha256_path, sha256_value
from stages.common.display import display
from stages.tasks.inference import adapter_of
from stages.tracking.runs import MODEL_TAG, model_digest
from stages.tracking.store import quiet

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from stages.serving.classifier import Package

SEEN = ("data/augmented/train.parquet", "data/clean/validation.parquet")
SEEN_IDS = "data/seen_ids.parquet"  # among the run's artifacts: what no later test may count on this model's side
PACKAGE_TAG = "attune.package"  # of a version: digest of all its parts, of which attune.model is one
PARTS = ("model", "exported", "serving")
STAGES = Path(__file__).parents[1]
SERVED = "serving/pyfunc.py"
CODE = (  # what it imports
    *("__init__.py", "common/__init__.py", "tasks/__init__.py", "tasks/inference.py"),
    *(f"common/text/{name}.py" for name in ("__init__", "cleaning", "columns", "markdown", "pii", "steps")),
    *(f"serving/{name}.py" for name in ("__init__", "answers", "classifier", "decision", "tokens")),
)
CONFIG = {"variant": None, "threads": None}  # what SERVING_MODEL_CONFIG may set
EXAMPLE = ["A film that stays with you.", "Two hours I will not get back."]


def fetch_seen_ids(client: "MlflowClient", version: Any, folder: Path) -> set[str]:
    """Return the ids of the rows that a registered model was trained or selected on (none if it kept no list)."""
    import polars as pl

    kept = client.list_artifacts(version.run_id, str(Path(SEEN_IDS).parent))
    if SEEN_IDS not in {item.path for item in kept}:
        return set()
    file = client.download_artifacts(version.run_id, SEEN_IDS, str(folder))
    return set(pl.read_parquet(file)["id"])


def fetch_package(name: str, which: str, folder: Path) -> "Package":
    """Copy the parts of a registered model (by alias or number) into a folder. Nothing of what is fetched is run."""
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    from stages.serving.classifier import Package

    uri = f"models:/{name}/{which}" if which.isdigit() else f"models:/{name}@{which}"
    downloaded = Path(download_artifacts(uri, dst_path=str(folder / "artifacts")))
    logged = Model.load(str(downloaded)).flavors["python_function"].get("artifacts", {})
    if not logged:  # an earlier version: in MLflow's flavour for transformers
        shutil.copytree(downloaded / "components" / "tokenizer", downloaded / "model", dirs_exist_ok=True)
        return Package(downloaded / "model")
    parts = {name: downloaded / str(part["path"]) for name, part in logged.items()}
    for path in parts.values():
        if not path.resolve().is_relative_to(downloaded.resolve()):  # a registry may name any path
            raise ValueError(f"the version names a part outside of it: {display(str(path), 120)}")
    return Package(parts["model"], parts.get("exported"), parts.get("serving"))


def fetch_model(name: str, which: str, folder: Path) -> Path:
    """Copy a registered model into a folder, and return that of its weights and tokenizer."""
    return fetch_package(name, which, folder).model


def package_digest(package: "Package") -> str:
    """Return the digest of all that answers depend on: thresholds may change where weights do not."""
    return sha256_value([sha256_path(part) if part else None for part in _parts(package).values()])


def log_and_register(client: "MlflowClient", name: str, run_id: str, package: "Package", card: Path) -> int:
    """Log a model with all its parts in MLflow, and make it a version of the registered model."""
    import polars as pl
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(SEEN_IDS).name
        pl.concat([pl.read_parquet(seen, columns=["id"]) for seen in SEEN]).write_parquet(file, compression="zstd")
        client.log_artifact(run_id, str(file), str(Path(SEEN_IDS).parent))
    logged = _log(client, run_id, package, card)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        source=f"models:/{logged}",
        run_id=run_id,
        model_id=logged,
        tags={MODEL_TAG: model_digest(package.model), PACKAGE_TAG: package_digest(package)},
        description=card.read_text(encoding="utf-8")[:5000],
    )
    return int(version.version)


def _log(client: "MlflowClient", run_id: str, package: "Package", card: Path) -> str:
    """Log the model as Python that MLflow runs when it is served (its source, no pickle of it); return its id."""
    import mlflow
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    # Made here, and not by `log_model` within the run: that would end the training's run a second time.
    model = client.create_logged_model(run.info.experiment_id, "model", run_id, params=run.data.params)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    with quiet(), tempfile.TemporaryDirectory() as name:
        code = Path(name) / "stages"
        for path in CODE:
            (code / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(STAGES / path, code / path)
        parts = {name: str(part) for name, part in _parts(package).items() if part}
        mlflow.pyfunc.log_model(
            model_id=model.model_id,
            python_model=str(STAGES / SERVED),
            artifacts={**parts, "card": str(card)},
            code_paths=[str(code)],
            signature=_signature(),
            input_example=EXAMPLE,
            model_config=CONFIG,
            pip_requirements=_pinned(package),
        )
    return str(model.model_id)


def _parts(package: "Package") -> dict[str, Path | None]:
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


def _pinned(package: "Package") -> list[str]:
    from stages.common.text.cleaning import TextCleaning

    wanted = ["mlflow", "torch", "transformers"]
    if len(package.variants) > 1:
        wanted.append("onnxruntime")
    if adapter_of(package.model):
        wanted.append("peft")
    if package.serving and (cleaning := TextCleaning.read(package.serving)):
        wanted += cleaning.packages
    return [f"{name}=={installed(name).partition('+')[0]}" for name in wanted]  # 2.13.0+cpu is on no index
