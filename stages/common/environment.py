"""What a training ran on: all that decides, beside code, data and params, with which bytes it ends.

It is recorded with the training's run in MLflow, as tags, and is no out: with the machine in an out, the first run on
any other machine would change `dvc.lock`.
"""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stages.common.distributed import world_size

TAG = "attune."
HARDWARE = ("processor", "architecture", "instructions", "device", "threads", "processes")
PACKAGES = (  # whose arithmetic, or whose way to write files, ends up in models, predictions and reports
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "polars",
    "onnx",
    "onnxruntime",
)
CPUINFO = Path("/proc/cpuinfo")


def training_environment(precision: str) -> dict[str, Any]:
    """Return what this training runs on.

    Args:
        precision: number format of its matrix products: `bfloat16`, `float32`.
    """
    import torch

    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "precision": precision,
        "python": ".".join(platform.python_version_tuple()[:2]),  # a release that only mends changes no bytes
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def with_earlier(environment: Mapping[str, Any], note: Path, resumed: bool) -> dict[str, Any]:
    """Return the environment of a whole training, of which this may be the last part; `note` keeps it for the next.

    What was another in an earlier part is told of both: `2, then 4` threads.
    """
    try:
        earlier = json.loads(note.read_text(encoding="utf-8")) if resumed else environment
    except (OSError, ValueError):
        earlier = environment
    whole = _joined(earlier, environment)
    note.write_text(json.dumps(whole), encoding="utf-8")
    return whole


def tags(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return what a training's run in MLflow is tagged with: `attune.processor`, `attune.torch`, …"""
    plain = {name: str(value) for name, value in environment.items() if name != "packages"}
    return {f"{TAG}{name}": value for name, value in {**plain, **environment["packages"]}.items()}


def environment_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return what the tags of a training say of its machine and packages, by name; nothing if they do not."""
    return {
        name: tags[f"{TAG}{name}"] for name in (*HARDWARE, "precision", "python", *PACKAGES) if f"{TAG}{name}" in tags
    }


def processor() -> str:
    """Return the first processor's name as Linux tells it, with family and model, else what the platform calls it.

    A virtual machine may have no more of a name than `Intel(R) Xeon(R) Processor`, and several generations share it.
    """
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in told:
        return platform.processor() or platform.machine()
    kind = ", ".join(
        f"{name} {told[key]}" for name, key in {"family": "cpu family", "model": "model"}.items() if key in told
    )
    return f"{told['model name']} ({kind})" if kind else told["model name"]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _joined(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _joined(before, value)
        if isinstance(value, Mapping) and isinstance(before := earlier.get(name), Mapping)
        else _one(earlier.get(name, value), value)
        for name, value in now.items()
    }


def _one(before: Any, now: Any) -> Any:
    """Return a value, or both where it changed; one that changed before stays as it is told."""
    if before == now or str(before).endswith(f", then {now}"):
        return before
    return f"{before}, then {now}"
