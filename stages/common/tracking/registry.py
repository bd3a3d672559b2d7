"""The MLflow model registry: one version per trained model, `champion` for the one in use."""

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.tracking.runs import MODEL_TAG, model_digest
from stages.common.tracking.store import quiet
from stages.tasks.loading import adapter_of, load_merged

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERDICT_TAG = "attune.champion_verdict"  # what a champion's own promotion found: a later look finds the same
CHAMPION, CHALLENGER = "champion", "challenger"
SEEN = ("data/augmented/train.parquet", "data/clean/validation.parquet")
SEEN_IDS = "data/seen_ids.parquet"  # among the run's artifacts: what no later test may count on this model's side
REQUIREMENTS = ("mlflow", "torch", "transformers", "accelerate")
CODE = ("__init__.py", "tasks/__init__.py", "tasks/loading.py")  # what served_prefix.py imports
EXAMPLE = ["A film that stays with you.", "Two hours I will not get back."]


@dataclass(frozen=True)
class Registration:
    """What `reports/registration.json` says of a model: the gates it went through and what came of it."""

    model_name: str
    model: str
    promoted: bool
    champion_gate: dict[str, Any] | None
    gates: list[dict[str, Any]]

    @property
    def alias(self) -> str:
        """The alias that the model has earned."""
        return CHAMPION if self.promoted else CHALLENGER

    def as_report(self) -> dict[str, Any]:
        """Return the report's content."""
        fields = asdict(self)
        gates = fields.pop("gates")
        return {**fields, "alias": self.alias, "gates": gates}

    def champion_verdict(self) -> str:
        """Return the champion gate's settings and verdict as text, for the version to remember."""
        verdict = next((gate for gate in self.gates if gate["gate"] == CHAMPION), None)
        return json.dumps({"settings": self.champion_gate, "verdict": verdict})

    @classmethod
    def read(cls, path: Path) -> "Registration":
        """Read a report."""
        report = json.loads(path.read_text(encoding="utf-8"))
        report.pop("alias")
        return cls(**report)


def version_of(client: "MlflowClient", name: str, digest: str) -> int | None:
    """Return the registered version with this model digest, if there is one."""
    with quiet():
        found = client.search_model_versions(f"name = '{name}' and tags.`{MODEL_TAG}` = '{digest}'")
    return max((int(version.version) for version in found), default=None)


def champion(client: "MlflowClient", name: str) -> Any | None:
    """Return the registered version in use, or None before the first promotion."""
    from mlflow.exceptions import MlflowException

    try:
        with quiet():
            return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


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


def fetch_model(name: str, alias: str, folder: Path) -> Path:
    """Copy a registered model's weights and tokenizer into one folder that `stages.tasks` can load."""
    from mlflow.artifacts import download_artifacts

    with quiet():
        downloaded = Path(download_artifacts(f"models:/{name}@{alias}", dst_path=str(folder / "artifacts")))
    model = folder / "model"
    if (downloaded / "artifacts").is_dir():  # a prefix, logged as the folder that it is
        return Path(shutil.copytree(next((downloaded / "artifacts").iterdir()), model))
    shutil.copytree(downloaded / "model", model)
    shutil.copytree(downloaded / "components" / "tokenizer", model, dirs_exist_ok=True)
    return model


def ensure_registered(client: "MlflowClient", registration: Registration, run_id: str, model: Path, card: Path) -> int:
    """Register the model unless it is there, and give it the alias it has earned; return its version."""
    name = registration.model_name
    version = version_of(client, name, registration.model)
    if version is None:
        version = _register(client, registration, run_id, model, card)
    with quiet():
        current = champion(client, name)
        if registration.promoted:
            if current is None or int(current.version) != version:
                client.set_model_version_tag(name, str(version), VERDICT_TAG, registration.champion_verdict())
            client.set_registered_model_alias(name, CHAMPION, version)
            if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == str(version):
                client.delete_registered_model_alias(name, CHALLENGER)
        elif current is None or int(current.version) != version:
            client.set_registered_model_alias(name, CHALLENGER, version)
    return version


def _register(client: "MlflowClient", registration: Registration, run_id: str, model: Path, card: Path) -> int:
    """Log the model in MLflow, and make it a version of the registered model."""
    import mlflow
    import polars as pl

    digest = model_digest(model)
    if digest != registration.model:
        raise ValueError(f"{model} is not the model of reports/registration.json: run dvc repro")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(SEEN_IDS).name
        pl.concat([pl.read_parquet(seen, columns=["id"]) for seen in SEEN]).write_parquet(file, compression="zstd")
        client.log_artifact(run_id, str(file), str(Path(SEEN_IDS).parent))
    with quiet(), mlflow.start_run(run_id=run_id):
        logged = _log_prefix(model) if adapter_of(model) == "prefix_tuning" else _log_pipeline(model, card)
        if not client.search_registered_models(f"name = '{registration.model_name}'"):
            client.create_registered_model(registration.model_name)
        version = client.create_model_version(
            registration.model_name,
            source=logged.model_uri,
            run_id=run_id,
            model_id=logged.model_id,
            tags={MODEL_TAG: digest},
            description=card.read_text(encoding="utf-8")[:5000],
        )
    return int(version.version)


def _log_pipeline(model: Path, card: Path) -> Any:
    """Log a model in MLflow's transformers flavour; an adapter beside it is merged into the copy that is logged."""
    import mlflow
    import transformers
    from huggingface_hub import ModelCard
    from mlflow.models import infer_signature

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    classifier = transformers.pipeline(
        "text-classification", model=load_merged(model), tokenizer=tokenizer, device="cpu"
    )
    answers = [{"label": str(answer["label"]), "score": float(answer["score"])} for answer in classifier(EXAMPLE)]
    return mlflow.transformers.log_model(
        classifier,
        name="model",
        model_card=ModelCard(card.read_text(encoding="utf-8")),
        signature=infer_signature(EXAMPLE, answers),
        input_example=EXAMPLE,
        model_config={"truncation": True},  # the pipeline would give a long text whole, and the model break on it
        pip_requirements=_pinned(REQUIREMENTS),
    )


def _log_prefix(model: Path) -> Any:
    """Log a model with a prefix, which no pipeline knows, with the few lines of Python that load it."""
    import mlflow
    from mlflow.models import infer_signature

    stages = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "stages"
        for path in CODE:
            (code / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(stages / path, code / path)
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("served_prefix.py")),
            artifacts={"model": str(model)},
            code_paths=[str(code)],
            signature=infer_signature(EXAMPLE, [{"label": "a", "score": 0.5}]),
            input_example=EXAMPLE,
            pip_requirements=_pinned((*REQUIREMENTS, "peft")),
        )


def _pinned(packages: Iterable[str]) -> list[str]:
    return [f"{package}=={installed(package)}" for package in packages]
