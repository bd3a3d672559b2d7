"""The peak memory of a process that serves a form of the model.

`python -m stages.export.memory MODEL EXPORTED VARIANT` is that process: it answers the texts that come as JSON.
"""

import json
import subprocess
import sys
from pathlib import Path

from stages.common.serving.classifier import Classifier, Package, Variant

BATCH = 32


def peak_mib(package: Package, variant: Variant, texts: list[str]) -> float | None:
    """Return the MiB that a new process of this form takes at most to answer these texts, or None if it cannot."""
    command = [sys.executable, "-m", __name__, str(package.model), str(package.exported), variant]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  warning: the memory of {variant} was not measured: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    return float(done.stdout)


def _peak_of_this_process() -> float:
    """Return MiB. Linux keeps the parent's peak in `ru_maxrss` of a child, but not in this file."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmHWM in /proc/self/status")


def _main(model: str, exported: str, variant: Variant) -> None:
    Classifier(Package(Path(model), Path(exported)), variant).probabilities(json.load(sys.stdin), batch_size=BATCH)
    print(round(_peak_of_this_process(), 1))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], sys.argv[3])  # type: ignore[arg-type]
