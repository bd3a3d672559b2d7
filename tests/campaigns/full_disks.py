"""Runs on a disk that gets full: `unshare -m python -m tests.campaigns.full_disks 7 8` (seed and times), as root.

Each has room for 30 to 95 % of what it writes; then it gets more, and the same command is given again. It falls short
if the first has a traceback of ours or no error that names the full disk, or the second leaves anything else.
"""

import re
import shutil
import subprocess
import sys
from random import Random

from tests.campaigns.runs import DISK, PLACE, WORK, Run, campaign
from tests.projects import Project

FULL = "No space left on device|is full"


def mount(how: str) -> int:
    """Mount a file system, or change it; return how many bytes it holds."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", how, "campaign", DISK], check=True)
    return shutil.disk_usage(DISK).used


def fill(rng: Random, number: int, command: str, over: str, known: dict) -> tuple[Run, Run, str, str]:
    mount("size=1g")
    Project(WORK / over).copy(PLACE)
    begun = mount("remount,size=1g")
    size = begun + int(rng.uniform(0.3, 0.95) * (known["used"] - begun))
    mount(f"remount,size={size}")
    full, _ = Run(command), mount("remount,size=1g")
    said = [line.strip()[:160] for line in full.text().splitlines() if re.search(FULL, line)]
    ours = re.search(r'File "[^"]*/project/(stages|flows)/|Task run .* - Traceback|please report', full.text())
    fault = "TRACEBACK" if ours else "" if full.code and said else "NOTHING OF THE DISK"
    return full, Run(command), f"{size / 2**20:4.1f} {full.code:4} {said[-1] if said else ''}", fault


DISK.mkdir(exist_ok=True, parents=True)
mount("size=1g")
sys.exit(campaign(["nothing"], " MiB exit what was said", fill))
