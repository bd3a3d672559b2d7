"""What a training ran on: whatever decides the bytes of the model besides code, data and params.

It is recorded as tags of the training's run in MLflow, and is no out: with the machine in an out, the first run on any
other machine would change `dvc.lock`.
"""

import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from stages.common.distributed import world_size

TAG = "attune."
HARDWARE = ("processor", "architecture", "instructions", "device", "threads", "processes")
PACKAGES = (  # that compute or write models, predictions and reports
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


def training_environment(precision: str) -> dict[str, str]:
    """Return what this training runs on, by name: its hardware, number format, Python and packages.

    `precision` is the number format of its matrix products: `bfloat16`, `float32`.
    """
    import torch

    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": str(torch.get_num_threads()),
        "processes": str(world_size()),
        "precision": precision,
        "python": ".".join(platform.python_version_tuple()[:2]),  # a patch release changes no bytes
        **{name: version(name) for name in PACKAGES},
    }


def with_earlier(environment: Mapping[str, str], note: Path, resumed: bool) -> dict[str, str]:
    """Return the environment of a whole training, which may have been resumed; `note` is the file that keeps it.

    What differed in an earlier part has both values: `2, then 4` threads.
    """
    try:
        earlier = json.loads(note.read_text(encoding="utf-8")) if resumed else {}
    except (OSError, ValueError):
        earlier = {}
    whole = {}
    for name, current in environment.items():
        previous = str(earlier.get(name, current))
        unchanged = previous == current or previous.endswith(f", then {current}")
        whole[name] = previous if unchanged else f"{previous}, then {current}"
    note.write_text(json.dumps(whole), encoding="utf-8")
    return whole


def tags(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a training's run in MLflow is tagged with: `attune.processor`, `attune.torch`, …"""
    return {f"{TAG}{name}": value for name, value in environment.items()}


def environment_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that the tags of a training record, by name; nothing if they record none."""
    names = (*HARDWARE, "precision", "python", *PACKAGES)
    return {name: tags[f"{TAG}{name}"] for name in names if f"{TAG}{name}" in tags}


def processor() -> str:
    """Return the first processor's name as Linux gives it, with family and model, else what the platform calls it.

    A virtual machine may report only `Intel(R) Xeon(R) Processor`, a name that several generations share.
    """
    try:
        first = CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        first = ""
    fields = dict(re.findall(r"^([^\t:]+?)\s*: *(.*)$", first, re.MULTILINE))
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    labels = {"family": "cpu family", "model": "model"}
    kind = ", ".join(f"{label} {fields[field]}" for label, field in labels.items() if field in fields)
    return f"{fields['model name']} ({kind})" if kind else fields["model name"]
