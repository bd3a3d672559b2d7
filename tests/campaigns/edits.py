"""Slips of the hand in params.yaml are found where they are: `python -m tests.campaigns.edits 7 300` (seed and times).

The right line is the one edited. Of a line written twice: either; of one deleted: what stands there now, or the nearest
above with less indentation; where YAML's own error has marks on other lines alone: also these. A message is right if it
names a right line first, or one among at most three. A section left out has no line, nor what touches the whole file.
"""

import random
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from tests.projects import PROJECT

KEY = re.compile(r"(?P<before> *(?:- )?)(?P<key>[\w.]+):(?P<gap> +)(?P<value>[^#\s].*?)(?P<rest> *(?: #.*)?)")
VALUES = [
    "[1, 2]",
    "{a: 1}",
    "text",
    "12.5",
    "null",
    "true",
    "-1",
    '""',
    "[[]]",
    "2026-01-01",
    "{}",
    "[null]",
    "yes",
    "~",
]
VALUES += ["no", "on", "TRUE", "*nothing", "&a", "&a [*a]", "{<<: *base}", "[&x 1, *x]", "*", "& x", "&a {b: *a}"]
NUMBERS = ["-9", "9" * 12, "1e400", "9" * 5000, "0x1f", "1.5.5", "1,5", "20%", "1_0", ".inf", "-0", "1e-400", "nan"]
PIECES = {"quote": "\"'", "bracket": "[]{}", "not UTF-8": "\udce9\udcff", "NUL": "\0\x07", "colon": [": ", ":"]}
PIECES |= {"tab": "\t", "comment sign": [" # ", " #"], "alias": ["*x ", "&x "]}
KINDS = [*PIECES, "key", "blank", "indent", "value", "number", "twice", "list", "deleted", "joined", "mark", "CRLF"]


def edited(rng: random.Random, kind: str, text: str) -> tuple[bytes, set[int], str]:
    """Return the file, the right lines (from 1; none: it has none), and the line as it is now."""
    lines = text.split("\n")
    n, m = rng.choice([(n, m) for n, line in enumerate(lines) if (m := KEY.fullmatch(line))])
    line, start, right, at = lines[n], m.start("value"), {n + 1}, rng.randrange(m.start("key"), m.end("key"))
    spot = rng.choice([0, m.start("key"), start, start, rng.randint(start, m.end("value"))])
    lines[n] = {
        "key": line[:at] + rng.choice(["", "x", line[at] * 2]) + line[at + 1 :],
        "blank": line[: m.start("gap")] + line[start:],
        "indent": rng.choice([line[1:], line[2:], f" {line}", f"  {line}", f"   {line}"]),
        "value": line[:start] + rng.choice(VALUES) + m["rest"],
        "number": re.sub(r"\b\d[\w.-]*", rng.choice(NUMBERS), line, count=1),
        "twice": f"{line}\n{line}",
        "list": rng.choice([f"{line[:start]}[{m['value']}]{m['rest']}", f"{m['before']}- {line[m.start('key') :]}"]),
        "joined": f"{line} {lines[n + 1].strip()}",
        **{name: line[:spot] + rng.choice(pieces) + line[spot:] for name, pieces in PIECES.items()},
    }.get(kind, line)
    if kind in ("joined", "deleted"):
        del lines[n + (kind == "joined")]
        above = [k + 1 for k in range(n) if lines[k].strip() and not lines[k].startswith(" " * len(m["before"]))]
        right |= set(above[-1:]) if kind == "deleted" else set()
    right = {n + 1, n + 2} if kind == "twice" else set() if kind in ("mark", "CRLF") else right
    whole = ("\ufeff" * (kind == "mark") + ("\r\n" if kind == "CRLF" else "\n").join(lines)).encode(
        errors="surrogateescape"
    )
    try:
        YAML().load(whole.decode())
    except (YAMLError, ValueError) as error:
        marks = {mark.line + 1 for name in ("problem_mark", "context_mark") if (mark := getattr(error, name, None))}
        right |= set() if marks & right else marks
    return whole, right, lines[n]


def tried(number: int) -> tuple[str, list[str], str]:
    """Return the kind of an edit, what to count of it, and what to show of it."""
    rng, kind = random.Random(f"{sys.argv[1]} {number}"), KINDS[number % len(KINDS)]
    file = Path(tempfile.mkdtemp()) / "params.yaml"
    content, right, line = edited(
        rng, kind, rng.choice([*PROJECT.glob("recipes/*.yaml"), PROJECT / "params.yaml"]).read_text()
    )
    file.write_bytes(content)
    try:
        check = [sys.executable, "-m", "stages.common.params", file]
        done = subprocess.run(check, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return kind, ["hangs"], f"{kind}: hangs: {line}"
    named = [int(found) for found in re.findall(rf"(?:{file}:|\bline )(\d+)", done.stderr)]
    is_right = named[:1] and (named[0] in right or (len(set(named)) <= 3 and right & set(named)))
    counts = ["refused" if done.returncode else "accepted"] + ["traceback"] * ("Traceback" in done.stderr)
    if done.returncode and right and not re.search(r" left out$", done.stderr, re.MULTILINE):
        counts += ["line", "right" if is_right else "wrong"]
    return (
        kind,
        counts,
        f"{kind}, right: {right}: {line[:160]!r}\n{done.stderr[-600:]}" * bool({"wrong", "traceback"} & {*counts}),
    )


if __name__ == "__main__":
    counted, shown = defaultdict(Counter), []
    for kind, counts, show in ThreadPoolExecutor(2).map(tried, range(int(sys.argv[2]))):
        for name in (kind, "in all"):
            counted[name].update(counts)
        shown += [show] * bool(show)
    names, total = ("accepted", "refused", "line", "right", "hangs", "traceback"), counted["in all"]
    print(*shown, f"seed {sys.argv[1]}\n{'edit':12}" + "".join(f"{name:>10}" for name in names), sep="\n")
    for kind in [*KINDS, "in all"]:
        print(f"{kind:12}" + "".join(f"{counted[kind][name]:10}" for name in names))
    sys.exit(total["right"] < 0.97 * total["line"] or bool(total["hangs"] or total["traceback"]))
