"""Slips of the hand in params.yaml are found where they are: `python -m tests.campaigns.edits 7 300` (seed and times).

The right line is the one edited. Of a line written twice: either; of one deleted or made a comment: what stands there
now, or the nearest above with less indentation; where YAML's own error has marks on other lines alone: also these. A
message is right if it names a right line first. What touches the whole file has none.
"""

import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from tests.projects import PROJECT

FILES = [PROJECT / "params.yaml", *sorted(PROJECT.glob("recipes/*.yaml"))]
KEY = re.compile(r"(?P<before> *(?:- )?)(?P<key>[\w.]+):(?P<gap> +)(?P<value>[^#\s].*?)(?P<rest> *(?: #.*)?)")
N = re.compile(r"\b\d[\w.-]*")
VALUES = '[1, 2]|{a: 1}|text|12.5|null|true|-1|""|[[]]|2026-01-01|{}|[null]|yes|no|on|TRUE|~|*a|&a|&a [*a]|*|& x'
NUMBERS = ["-9", "9" * 12, "1e400", "9" * 5000, "0x1f", "1.5.5", "1,5", "20%", "1_0", ".inf", "-0", "1e-400", "nan"]
PIECES = {"quote": "\"'", "bracket": "[]{}", "not UTF-8": "\udce9\udcff", "NUL": "\0\x07", "colon": [": ", ":"]}
PIECES |= {"tab": "\t", "comment": [" # ", " #"], "alias": ["*x ", "&x "]}
KINDS = [*PIECES, "key", "blank", "indent", "value", "number", "twice", "list", "deleted", "joined", "mark", "CRLF"]
COUNTED = ["accepted", "refused", "line", "right", "hangs", "traceback"]


def edited(rng: random.Random, kind: str, text: str) -> tuple[bytes, set[int], str]:
    """Return the file, the right lines (from 1; none: it has none), and the line as it is now."""
    lines = text.split("\n")
    keys = {n: m for n, line in enumerate(lines) if (m := KEY.fullmatch(line))}
    n, m = rng.choice([(n, m) for n, m in keys.items() if kind != "number" or N.search(m["value"])])
    line, start, at = lines[n], m.start("value"), rng.randrange(m.start("key"), m.end("key"))
    spot = rng.choice([0, m.start("key"), start, start, rng.randint(start, m.end("value"))])
    above = [k for k in range(n) if lines[k].strip() and not lines[k].startswith(" " * len(m["before"]))][-1:] or [n]
    new = {name: line[:spot] + rng.choice(pieces) + line[spot:] for name, pieces in PIECES.items()} | {
        "key": line[:at] + rng.choice(["", "x", line[at] * 2]) + line[at + 1 :],
        "blank": line[: m.start("gap")] + line[start:],
        "indent": rng.choice([line[1:], line[2:], f" {line}", f"  {line}", f"   {line}"]),
        "value": line[:start] + rng.choice(VALUES.split("|")) + m["rest"],
        "number": N.sub(rng.choice(NUMBERS), line, count=1),
        "list": rng.choice([f"{line[:start]}[{m['value']}]{m['rest']}", f"{m['before']}- {line[m.start('key') :]}"]),
        "joined": f"{line} {lines[n + 1].strip()}",
    }
    size, times = 1 + (kind == "joined"), {"twice": 2, "deleted": 0}.get(kind, 1)  # lines taken out, and put in
    lines[n : n + size] = [new.get(kind, line)] * times
    other = {"twice": {n + 1}, "deleted": {*above}, "comment": {*above}}.get(kind, set())
    right = set() if kind in ("mark", "CRLF") else {k + 1 for k in {n} | other}
    whole = "\ufeff" * (kind == "mark") + ("\r\n" if kind == "CRLF" else "\n").join(lines)
    try:
        YAML().load(whole)
    except (YAMLError, ValueError) as error:
        marks = {mark.line + 1 for name in ("problem_mark", "context_mark") if (mark := getattr(error, name, None))}
        right |= set() if marks & right else marks
    return whole.encode(errors="surrogateescape"), right, lines[n]


def tried(number: int) -> tuple[str, list[str], str]:
    rng, kind, file = random.Random(f"{sys.argv[1]} {number}"), KINDS[number % len(KINDS)], Path(tempfile.mkstemp()[1])
    content, right, line = edited(rng, kind, rng.choice([*FILES, FILES[0]]).read_text())
    file.write_bytes(content)
    command = ["timeout", "10", sys.executable, "-m", "stages.common.params", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    named = [int(found) for found in re.findall(rf"(?:{file}:|\bline )(\d+)", done.stderr)]
    is_right = {*named[:1]} & right
    found = {0: ["accepted"], 1: ["refused"], 124: ["hangs"]}.get(done.returncode, ["traceback"])
    found += ["traceback"] * ("Traceback" in done.stderr)
    if done.returncode == 1 and right and " left out\n" not in done.stderr:
        found += ["line", "right" if is_right else "wrong"]
    show = {"wrong", "hangs", "traceback"} & {*found}
    return kind, found, f"{kind}, right: {right}: {line[:160]!r}\n{done.stderr[-600:]}" if show else ""


counts = Counter({(kind, name): 0 for kind in [*KINDS, "in all"] for name in COUNTED})
for kind, found, show in ThreadPoolExecutor(2).map(tried, range(int(sys.argv[2]))):
    counts.update((row, name) for row in (kind, "in all") for name in found)
    print(show, end="")
print(f"seed {sys.argv[1]}\n{'edit':12}" + "".join(f"{name:>10}" for name in COUNTED))
for kind in [*KINDS, "in all"]:
    print(f"{kind:12}" + "".join(f"{counts[kind, name]:10}" for name in COUNTED))
refused, right, *bad = (counts["in all", name] for name in COUNTED[2:])
sys.exit(right < 0.97 * refused or any(bad))
