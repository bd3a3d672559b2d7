"""A trained model as MLflow keeps it: its parts, the code that serves them, and the ids that it was trained on."""

import shutil
import tempfile
from contextlib import suppress
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.digests import sha256_path, sha256_value
from stages.common.errors import AttuneError
from stages.common.redact import redacted
from stages.tasks.inference import adapter_of
from stages.tracking.runs import MODEL_TAG
from stages.tracking.store import quiet, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from stages.serving.backends import Package
    from stages.tasks.base import Task

PACKAGE_TAG = "attune.package"  # of a version: digest of all its parts, of which attune.model is one
SEEN_FILES = ("data/augmented/train.parquet", "data/clean/validation.parquet")
SEEN_IDS = "data/seen_ids.parquet"  # artifact of the run: rows that cannot test this model, because it has seen them
STAGES = Path(__file__).parents[1]
SERVED = "serving/pyfunc.py"
CODE = (  # all of Attune that SERVED imports, but for the files of the model's task
    *("__init__.py", "common/__init__.py"),
    *(f"common/text/{name}.py" for name in ("__init__", "cleaning", "columns", "pii", "steps")),
    *(f"serving/{name}.py" for name in ("__init__", "answers", "backends")),
    *(
        f"tasks/{name}.py"
        for name in ("__init__", "base", "decision", "evidence", "generating", "inference", "targets")
    ),
    "tasks/training.py",
)
CONFIG = {"variant": None, "threads": None}  # what SERVING_MODEL_CONFIG may set


def package_digest(package: "Package") -> str:
    """Return the digest of all that answers depend on: thresholds may change where weights do not."""
    return sha256_value([sha256_path(part) if part else None for part in _parts(package).values()])


def find_version(client: "MlflowClient", name: str, which: str) -> Any:
    """Return a version of a registered model, by alias or number."""
    return (client.get_model_version if which.isdigit() else client.get_model_version_by_alias)(name, which)


def fetch_package(name: str, which: str, folder: Path) -> "Package":
    """Copy the parts of a registered model (by alias or number) into a folder. Nothing of what is fetched is run.

    An AttuneError if its files are not where MLflow has put them, or are others by now.
    """
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    from stages.serving.backends import Package

    client = MlflowClient()
    version = find_version(client, name, which)
    try:
        downloaded = Path(download_artifacts(f"models:/{name}/{version.version}", dst_path=str(folder / "artifacts")))
        artifacts = Model.load(str(downloaded)).flavors["python_function"]["artifacts"]
        parts = {part: downloaded / str(artifact["path"]) for part, artifact in artifacts.items()}
        if not (model := parts["model"]).exists() or version.tags.get(MODEL_TAG, "") not in ("", sha256_path(model)):
            raise ValueError("others than were registered")
    except Exception as error:  # of MLflow, or of the many stores that artifacts can be in
        where = redacted(client.get_model_version_download_uri(name, version.version))
        what = f"the files of {name} version {version.version} are not to be had at {where}: {reason_of(error)}"
        raise AttuneError(what, "put them back; or make the model again: make run") from None
    return Package(model, parts.get("exported"), parts.get("serving"))


def fetch_seen_ids(client: "MlflowClient", version: Any, folder: Path) -> set[str]:
    """Return the ids of the rows that a registered model was trained or selected on."""
    import polars as pl

    return set(pl.read_parquet(client.download_artifacts(version.run_id, SEEN_IDS, str(folder)))["id"])


def log_and_register(client: "MlflowClient", name: str, run_id: str, package: "Package", card: Path) -> int:
    """Log a model with all its parts in MLflow, and make it a version of the registered model."""
    import polars as pl
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(SEEN_IDS).name
        seen = pl.concat([pl.read_parquet(path, columns=["id"]) for path in SEEN_FILES])
        seen.write_parquet(file, compression="zstd")
        client.log_artifact(run_id, str(file), str(Path(SEEN_IDS).parent))
    model_id = _log(client, run_id, package, card)
    with suppress(MlflowException):  # it exists already; whatever else is wrong, the next line meets it as well
        client.create_registered_model(name)
    version = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        tags={MODEL_TAG: sha256_path(package.model), PACKAGE_TAG: package_digest(package)},
        description=card.read_text(encoding="utf-8")[:5000],
    )
    return int(version.version)


def _log(client: "MlflowClient", run_id: str, package: "Package", card: Path) -> str:
    """Log the model as Python code that MLflow runs when it is served (no pickle of it); return its id."""
    import mlflow
    from mlflow.entities import LoggedModelOutput

    from stages.tasks import FIRST, load_task, read_decision

    task = load_task(read_decision(package.serving).task if package.serving else FIRST)
    run = client.get_run(run_id)
    # Created here, and not by `log_model` within the run: that would end the training's run a second time.
    model = client.create_logged_model(run.info.experiment_id, "model", run_id, params=run.data.params)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    with quiet(), tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "stages"
        copy_code(task.name, code)
        parts = {name: str(part) for name, part in _parts(package).items() if part}
        mlflow.pyfunc.log_model(
            model_id=model.model_id,
            python_model=str(STAGES / SERVED),
            artifacts={**parts, "card": str(card)},
            code_paths=[str(code)],
            signature=_signature(task),
            input_example=task.example,
            model_config=CONFIG,
            pip_requirements=_requirements(package),
        )
    return str(model.model_id)


def copy_code(task: str, target: Path) -> None:
    """Copy the code that serves models of a task, a package `stages` of which nothing else of Attune is needed."""
    of_task = (f"tasks/{file.resolve().name}" for file in sorted((STAGES / "tasks/by_name" / task).iterdir()))
    for path in (*CODE, *of_task):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(STAGES / path, target / path)


def _parts(package: "Package") -> dict[str, Path | None]:
    """Return the folders of a package by name; None: it has no such part, or an empty one."""
    folders = {"model": package.model, "exported": package.exported, "serving": package.serving}
    return {name: folder if folder and any(folder.iterdir()) else None for name, folder in folders.items()}


def _signature(task: "Task") -> Any:
    """Return what MLflow shows of params and answers.

    Of the texts it says nothing: it would hand them over as an array of texts, nulls and numbers among them.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Map

    types = {"map": Map(DataType.double), "any": AnyType()}
    answer = [
        ColSpec(types.get(kind.rstrip("?")) or DataType[kind.rstrip("?")], name, required="?" not in kind)
        for name, kind in task.signature.items()
    ]
    params = ParamSchema([ParamSpec("top_k", DataType.long, None), ParamSpec("threshold", DataType.double, None)])
    return ModelSignature(outputs=Schema(answer), params=params)


def _requirements(package: "Package") -> list[str]:
    from stages.common.text.cleaning import TextCleaning

    names = ["mlflow", "torch", "transformers"]
    if len(package.variants) > 1:
        names.append("onnxruntime")
    if adapter_of(package.model):
        names.append("peft")
    if package.serving and (cleaning := TextCleaning.read(package.serving)):
        names += cleaning.packages
    return [f"{name}=={installed(name).partition('+')[0]}" for name in names]  # 2.13.0+cpu is on no index
