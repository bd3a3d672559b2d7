"""What a model costs to keep, wherever it runs; what it costs to run depends on the machine, and is no out."""

from math import prod
from pathlib import Path


def size_of(folder: Path) -> dict[str, int]:
    """Return the number of `parameters` in a model's safetensors files (adapters included), and their `bytes`."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    parameters = 0
    for file in files:
        with safe_open(file, framework="numpy") as tensors:
            parameters += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return {"parameters": parameters, "bytes": sum(file.stat().st_size for file in files)}
