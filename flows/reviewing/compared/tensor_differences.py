"""How two files of weights differ, in a line: tensors that only one has, and by how much the others are apart."""

from pathlib import Path
from typing import Any

from stages.common.shown import shown

NAME = 80  # characters shown of a tensor's name


def open_tensors(path: Path) -> Any:
    """Open a safetensors file; its tensors are read as they are asked for.

    Raises:
        SafetensorError: if it is none.
    """
    import ml_dtypes  # noqa: F401  # teaches NumPy bfloat16
    from safetensors import safe_open

    return safe_open(path, framework="numpy")


def tensor_difference(old: Any, new: Any) -> str:
    """Return how the content of two files differs; nothing if it does not."""
    told = []
    before, after = old.keys(), new.keys()
    for names, what in (
        ([name for name in before if name not in set(after)], "gone"),
        ([name for name in after if name not in set(before)], "new"),
    ):
        if names:
            told.append(f"{_count(len(names))} {what} ({_name(names[0])})")
    both = [name for name in before if name in set(after)]
    shapes = {name: (_shape(old, name), _shape(new, name)) for name in both}
    reshaped = [name for name, (was, now) in shapes.items() if was != now]
    if reshaped:
        was, now = shapes[reshaped[0]]
        told.append(f"{_count(len(reshaped))} of another shape or type ({_name(reshaped[0])}: {was} → {now})")
    apart = {
        name: by
        for name in both
        if name not in set(reshaped) and (by := _apart(old.get_tensor(name), new.get_tensor(name))) is not None
    }
    if apart:
        most = max(apart, key=lambda name: apart[name])
        verb = "differs" if len(apart) == 1 else "differ"
        told.append(f"{len(apart)} of {_count(len(both))} {verb}, by up to {_by(apart[most])} ({_name(most)})")
    if (old.metadata() or {}) != (new.metadata() or {}):
        told.append("the notes in the header differ")
    return ", ".join(told)


def _apart(old: Any, new: Any) -> float | None:
    """Return the largest absolute difference of two tensors of one shape; None: they have the same bytes."""
    import numpy as np

    if old.tobytes() == new.tobytes():
        return None
    wide = np.complex128 if old.dtype.kind == "c" else np.float64
    before, after = old.astype(wide), new.astype(wide)
    with np.errstate(all="ignore"):
        by = np.abs(before - after)
    by = by[(before != after) & ~(np.isnan(before) & np.isnan(after))]
    if not by.size:
        return 0.0  # -0 and 0, say
    return float("inf") if np.isnan(by).any() else float(by.max())


def _shape(tensors: Any, name: str) -> str:
    found = tensors.get_slice(name)
    return f"{found.get_dtype()} {'×'.join(map(str, found.get_shape())) or '1'}"


def _by(most: float) -> str:
    return "no finite number" if most == float("inf") else f"{most:.2g}"


def _count(number: int) -> str:
    return f"{number} tensor" if number == 1 else f"{number} tensors"


def _name(name: str) -> str:
    return shown(name, NAME)
