"""`python -m flows.review --base origin/main --head HEAD`: what changed, what it did, and whether it can be rebuilt.

It works in git worktrees of its own, beside the checkout in which nothing changes. It writes `review.md`, for a comment
on a pull request, and `review.html`, with everything in one file.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from flows.command import program
from flows.repository.worktree_files import Log
from flows.reviewing.findings import Review
from flows.reviewing.page import render
from flows.reviewing.review import review
from flows.reviewing.verdict import Verdict, verdict_of
from stages.common.display import visible
from stages.common.errors import AttuneError
from stages.common.pipeline.stage import LOGS
from stages.common.redact import redacted

NOT_REPRODUCED = 3
MARKDOWN, HTML = "review.md", "review.html"


def carry_out(base: str | None, head: str, rebuild: bool, output: Path, log: Log) -> tuple[Review, Verdict]:
    """Review a commit of the current folder's checkout, and write both pages into a folder that is made if need be.

    The output of its stages goes to `review/` there.

    Raises:
        AttuneError: if a commit is none, the head is no project that can be read, or nothing can be written.
    """
    try:  # before a rebuild that takes hours
        (output / "review").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AttuneError(f"nothing can be written to {output}: {error.strerror}", "name another --output") from None

    def show(line: str) -> None:
        log(visible(redacted(line)))

    result = review(Path.cwd(), base, head, output / "review", show, from_nothing=rebuild)
    verdict = verdict_of(result)
    for name in (MARKDOWN, HTML):
        (output / name).write_text(render(result, verdict, markdown=name == MARKDOWN), encoding="utf-8")
    for line in (*verdict.headline, *verdict.risks):
        show(f"  {line.text}")
    return result, verdict


@program("interrupted; neither page was written")
def main(arguments: list[str] | None = None) -> int:
    """Review a commit from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.review",
        description="What a commit changes, what that did, and whether it can be rebuilt: review.md and review.html.",
        epilog=f"It ends with {NOT_REPRODUCED} if the recorded results are not reproduced (docs/reviewing.md).",
    )
    rebuilt = "run the head's pipeline again from nothing, and compare every out with dvc.lock (default)"
    base = "what to compare it with (default: origin/main, else main, else the one before)"
    parser.add_argument("--base", metavar="COMMIT", help=base)
    parser.add_argument("--head", metavar="COMMIT", default="HEAD", help="commit, tag or branch to review (HEAD)")
    parser.add_argument("--rebuild", action=argparse.BooleanOptionalAction, default=True, help=rebuilt)
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=LOGS, help="where both files go (logs)")
    options = parser.parse_args(arguments)
    show = partial(print, flush=True)
    result, _ = carry_out(options.base, options.head, options.rebuild, options.output, show)
    print(f"  {options.output / MARKDOWN}  {options.output / HTML}")
    return 0 if result.rebuild.holds else NOT_REPRODUCED


if __name__ == "__main__":
    sys.exit(main())
