"""Which number format and how many threads this machine should train with."""

from pathlib import Path
from typing import Literal

import torch


def wants_bf16(setting: bool | Literal["auto"]) -> bool:
    """Return whether to train in bfloat16 autocast: as told, or where the hardware multiplies it natively."""
    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & _processor_flags())


def _processor_flags() -> set[str]:
    """Return the features of the first processor (`flags` on x86, `Features` on Arm), or nothing off Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
