"""The pipeline's stages, one package each; run one with `python -m stages.NAME`.

Programs import this first, so it has what they need from their first moment on: Ctrl-C during the imports and a closed
pipe (`| head`) end them without a traceback, and what a terminal's encoding lacks is printed as its code.
"""

import atexit
import io
import os
import sys
from types import TracebackType


def _nobody_reads(end: str = "") -> bool:
    """Flush what was printed; return whether its reader has gone: then the rest goes nowhere."""
    try:
        print(end=end, flush=True, file=sys.__stdout__)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return True
    return False


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.exit(130)
    if issubclass(kind, BrokenPipeError) and _nobody_reads("\n"):  # else it is another pipe that broke
        sys.exit(141)  # 128 + SIGPIPE, as shells report it; the signal itself would also end a broken connection
    sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # one of our programs, and not somebody's own that loads a model
    sys.excepthook = _report
    atexit.register(_nobody_reads)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
