"""`python -m tests.campaigns.edits --seed 7 --times 300`: slips of the hand in params.yaml are found, where they are.

What the right line is: the one that was edited. A line written twice: either. A line deleted: the one that stands there
now, or the one that it belonged to (the nearest above with less indentation). Where the edit makes the file no YAML and
YAML's own error has marks on other lines alone (a quote that is closed far below), a line of those marks. A message is
right if the first line that it names is right, or if it names at most three and one is. No line is asked of what
touches the whole file, and of a whole section left out. An edit that still is in order is accepted, and not counted.
"""

import argparse
import codecs
import multiprocessing
import os
import random
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stages.common.params.__main__ import main as check
from tests.projects import PROJECT

SECONDS = 10.0
KEY = re.compile(r"(?P<before> *(?:- )?)(?P<key>[\w.]+):(?P<gap> +)(?P<value>[^#\s].*?)(?P<rest> *(?: #.*)?)")
OTHERS = ("[1, 2]", "{a: 1}", "some text", "12.5", "null", "true", "-1", '""', "[[]]", "2026-01-01", "{}", "[null]")
ALIASES = ("*nothing", "&a", "&a [*a]", "{<<: *base}", "[&x 1, *x]", "*", "& x", "&a {b: *a}")
Edit = Callable[[random.Random, re.Match[str]], str]


def misspelt(rng: random.Random, m: re.Match[str]) -> str:
    key, at = m["key"], rng.randrange(len(m["key"]))
    new = rng.choice(
        [key[:at] + key[at + 1 :], key[:at] + key[at] + key[at:], key[:at] + "x" + key[at + 1 :], key.title()]
    )
    return m["before"] + new + m[0][m.end("key") :]


def number(rng: random.Random, m: re.Match[str]) -> str:
    new = rng.choice(["-{}", "{}000000000", "{}e400", "1" + "0" * 5000, "0x{}", "{}.5.5", "{},5", "{}%", "1_{}"])
    return m["before"] + re.sub(r"\d+(\.\d+)?", lambda n: new.format(n[0]), m[0][len(m["before"]) :], count=1)


def bracket(rng: random.Random, m: re.Match[str]) -> str:
    places = [place.start() for place in re.finditer(r"[\[\]{}]", m["value"])]
    if not places:
        return m[0][: m.start("value")] + rng.choice("[{]}") + m[0][m.start("value") :]
    at = m.start("value") + rng.choice(places)
    return m[0][:at] + m[0][at + 1 :]


def cut(rng: random.Random, m: re.Match[str], text: str) -> str:
    at = rng.randint(m.start("value"), m.end("value"))
    return m[0][:at] + text + m[0][at:]


def shifted(rng: random.Random, m: re.Match[str]) -> str:
    return m[0][min(rng.randint(1, 3), len(m["before"])) :] if rng.random() < 0.5 else " " * rng.randint(1, 3) + m[0]


def valued(m: re.Match[str], value: str) -> str:
    return m[0][: m.start("value")] + value + m["rest"]


ONE_LINE: dict[str, Edit] = {
    "key misspelt": misspelt,
    "no blank after colon": lambda rng, m: m[0][: m.start("gap")] + m[0][m.end("gap") :],
    "indentation": shifted,
    "another type": lambda rng, m: valued(m, rng.choice(OTHERS)),
    "number": number,
    "written twice": lambda rng, m: f"{m[0]}\n{m[0]}",
    "tab": lambda rng, m: rng.choice(
        [f"\t{m[0].lstrip()}", f"{m['before']}\t{m[0][len(m['before']) :]}", cut(rng, m, "\t")]
    ),
    "quote": lambda rng, m: (
        cut(rng, m, rng.choice("\"'")) if rng.random() < 0.5 else valued(m, rng.choice("\"'") + m["value"])
    ),
    "bracket": bracket,
    "anchor or alias": lambda rng, m: valued(m, rng.choice([*ALIASES, f"*x {m['value']}", f"&x {m['value']}"])),
    "list": lambda rng, m: rng.choice([valued(m, f"[{m['value']}]"), m["before"] + "- " + m[0][len(m["before"]) :]]),
    "yes and no": lambda rng, m: valued(m, rng.choice(["yes", "no", "on", "True", "TRUE", "~", "none"])),
    "comment sign": lambda rng, m: cut(rng, m, rng.choice([" # ", " #"])),
    "colon": lambda rng, m: rng.choice([m["before"] + m["key"] + m[0][m.end("gap") :], cut(rng, m, ": ")]),
    "not UTF-8": lambda rng, m: cut(rng, m, rng.choice(["\udce9", "\udcff", "\udcc3"])),
    "NUL": lambda rng, m: cut(rng, m, rng.choice(["\0", "\0\0\0\0", "\x07"])),
}
KINDS = (*ONE_LINE, "deleted", "joined", "byte-order mark", "CRLF")


def edited(rng: random.Random, kind: str, text: str) -> tuple[bytes, set[int], str]:
    """Return the file, the right lines (from 1; none: it has none), and the line as it is now."""
    lines = text.split("\n")
    number, match = rng.choice([(n, m) for n, line in enumerate(lines) if (m := KEY.fullmatch(line))])
    right, indent = {number + 1}, len(match["before"])
    if kind in ONE_LINE:
        lines[number] = ONE_LINE[kind](rng, match)
        right |= {number + 2} if kind == "written twice" else set()
    elif kind == "deleted":
        above = [n + 1 for n in range(number) if lines[n].strip() and len(lines[n]) - len(lines[n].lstrip()) < indent]
        right |= set(above[-1:])
        del lines[number]
    elif kind == "joined":
        lines[number : number + 2] = [f"{match[0]} {lines[number + 1].strip()}"]
    end = "\r\n" if kind == "CRLF" else "\n"
    whole = (codecs.BOM_UTF8 if kind == "byte-order mark" else b"") + end.join(lines).encode(errors="surrogateescape")
    return whole, right if kind in KINDS[:-2] else set(), lines[number]


def marks(content: bytes) -> set[int]:
    """Return the lines that YAML's own error is about, if it is none."""
    try:
        YAML(typ="rt").load(content.decode())
    except MarkedYAMLError as error:
        return {mark.line + 1 for mark in (error.problem_mark, error.context_mark) if mark}
    except (YAMLError, ValueError, RecursionError):
        pass
    return set()


def checked(file: Path) -> tuple[int | None, str]:
    """Return the exit status of the check (none: it hangs), and what it said."""
    said = file.with_suffix(".said")

    def work() -> None:
        os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
        sys.exit(check([str(file)]))

    process: Any = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(SECONDS)
    code = process.exitcode
    process.kill()
    return code, said.read_text(errors="replace")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.edits", description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--times", type=int, default=300)
    options = parser.parse_args()
    rng, counts, shown = random.Random(options.seed), defaultdict(Counter), []
    texts = [file.read_text() for file in (PROJECT / "params.yaml", *sorted(PROJECT.glob("recipes/*.yaml")))]
    file = Path(tempfile.mkdtemp(prefix="edits-")) / "params.yaml"
    for count in range(options.times):
        kind = KINDS[count % len(KINDS)]
        content, right, line = edited(rng, kind, rng.choice([texts[0], *texts]))
        file.write_bytes(content)
        code, said = checked(file)
        known = marks(content) if code else set()
        right |= known if right and not known & right else set()
        named = [int(n) for n in re.findall(rf"{re.escape(str(file))}:(\d+)|\bline (\d+)", said) for n in n if n]
        is_right = bool(named and (named[0] in right or (len(set(named)) <= 3 and right & set(named))))
        has_line = code == 1 and bool(right) and " left out" not in said
        what = "hangs" if code is None else "accepted" if code == 0 else "refused"
        traceback = "Traceback" in said or code not in (None, 0, 1)
        counts[kind].update(
            [what, *["traceback"] * traceback, *["line"] * has_line, *["right"] * (has_line and is_right)]
        )
        if what == "hangs" or traceback or (has_line and not is_right):
            shown.append(
                f"{kind}, right: {sorted(right)}: {line[:160]!r}\n{said.replace(str(file), 'params.yaml')[-700:]}"
            )
    names = ("accepted", "refused", "line", "right", "hangs", "traceback")
    print(f"seed {options.seed}\n{'edit':22}" + "".join(f"{name:>10}" for name in names))
    total: Counter[str] = sum(counts.values(), Counter())
    for kind, counted in [*counts.items(), ("in all", total)]:
        print(f"{kind:22}" + "".join(f"{counted[name]:10}" for name in names))
    share = total["right"] / max(total["line"], 1)
    print(f"right line: {share:.1%} of {total['line']}\n", *shown, sep="\n")
    return int(share < 0.97 or total["hangs"] + total["traceback"] > 0)


if __name__ == "__main__":
    sys.exit(main())
