"""How the programs of this folder end: an exit status, and errors for people without a traceback."""

import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from stages.common.display import visible
from stages.common.errors import AttuneError
from stages.common.pipeline.stage import of_the_disk

P = ParamSpec("P")


def program(interrupted: str) -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Have a function that is a program return an exit status: its own, 1 after an AttuneError, 130 after Ctrl-C.

    A full disk, or one that may not be written, is an error as AttuneErrors are. `interrupted` is said after Ctrl-C.
    While it works, SIGTERM ends it as an exception does, so that what it started or locked ends, too.
    """

    def wrap(work: Callable[P, int | None]) -> Callable[P, int]:
        @wraps(work)
        def main(*given: P.args, **named: P.kwargs) -> int:
            before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            try:
                return work(*given, **named) or 0
            except AttuneError as error:
                print(*map(visible, str(error).split("\n")), sep="\n", file=sys.stderr)  # it may quote foreign data
                return 1
            except Exception as error:
                if not (reason := of_the_disk(error)):
                    raise
                fix = "what is finished stays; mend that, and repeat the command"
                print(f"stopped: {visible(reason)}\n  → {fix}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print(f"\n{interrupted}", file=sys.stderr)
                return 130
            finally:
                signal.signal(signal.SIGTERM, before)

        return main

    return wrap
