"""The model to predict with: out of the registry, or out of a folder. Nothing that comes with it is run."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.common.drift import FILE, VERSION
from stages.common.errors import AttuneError
from stages.common.serving.classifier import FILES, Classifier, Package, Variant
from stages.common.shown import shown
from stages.common.tracking.store import Unreachable, connect, without_password

REGISTERED = "models:/"


def find_package(model: str | None, folder: Path) -> tuple[Package, str]:
    """Return the parts of a model, and its name for people.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a folder; None: the champion of params.yaml.
        folder: where a registered model is copied to.

    Raises:
        AttuneError: if there is no such model, or the registry cannot be reached.
    """
    if model is None:
        from stages.common.params import load_params

        model = f"{REGISTERED}{load_params().register_.model_name}@champion"
    if model.startswith(REGISTERED):
        return _registered(model, folder), model
    path = Path(model)
    if (path / "model" / "config.json").exists():
        return Package.within(path), model
    if path.resolve().name == "models" and (path / "finetuned" / "config.json").exists():
        return Package.of_project(path.resolve().parent), model
    raise AttuneError(
        f"{model} holds no model",
        f"name models/ after `make run`, a folder with model/ in it, or {REGISTERED}NAME@champion",
    )


def _registered(model: str, folder: Path) -> Package:
    match = re.fullmatch(rf"{REGISTERED}([^/@]+)(?:@([\w.-]+)|/(\d+))", model)
    if not match:
        raise AttuneError(f"{model} names no model", f"write {REGISTERED}NAME@ALIAS or {REGISTERED}NAME/VERSION")
    name, which = match[1], match[2] or match[3]
    try:
        connect()
        from mlflow.exceptions import MlflowException
    except Unreachable as error:
        raise AttuneError(
            f"the registry cannot be reached: {error}", "try again, or name a folder: --model models/"
        ) from None

    from stages.common.tracking.packaging import fetch_package

    try:
        return fetch_package(name, which, folder)
    except (MlflowException, OSError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise AttuneError(
            f"{model} cannot be fetched: {without_password(reason)}",
            "`make run` registers one; MLFLOW_TRACKING_URI says where to look; or name a folder: --model models/",
        ) from None


def load(package: Package, name: str, variant: Variant) -> Classifier:
    """Return the model, ready to answer.

    Raises:
        AttuneError: if it has no such variant, or is none.
    """
    if variant == "torch":  # ONNX does without transformers, whose import takes seconds
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    try:
        return Classifier(package, variant)
    except (ValueError, OSError) as error:
        raise AttuneError(f"{name}: {error}", "name another --variant or --model") from None
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime, safetensors and tokenizers each have kinds of their own, or plain ones
        by_runtime = type(error).__module__.startswith("onnxruntime") and package.exported
        file = package.exported / FILES[variant] if by_runtime and package.exported else package.model
        reason = shown((str(error).splitlines() or [""])[0], 160)
        raise AttuneError(
            f"{name}: {file} cannot be read ({type(error).__name__}: {reason})",
            "make it again (`make run`) or copy it again, or name another --variant or --model",
        ) from None


def profile_in(package: Package) -> Mapping[str, Any] | None:
    """Return what the model's training data looked like; None if it came without that, or with one of another time."""
    if not package.serving or not (file := package.serving / FILE).exists():
        return None
    profile = json.loads(file.read_text(encoding="utf-8"))
    return profile if profile.get("version") == VERSION else None
