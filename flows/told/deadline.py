"""Work that may take only so long: what it asks may be away."""

import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do work in a thread of its own, in the caller's context, and return its result.

    A thread cannot be ended: one that is late goes on unheard, and does not keep the program from ending.

    Raises:
        TimeoutError: if it takes longer.
    """
    found: dict[str, Any] = {}

    def run() -> None:
        try:
            found["result"] = work()
        except BaseException as error:
            found["error"] = error

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), daemon=True)
    thread.start()
    thread.join(seconds)
    if "error" in found:
        raise found["error"]
    if "result" not in found:
        raise TimeoutError(f"no answer within {seconds:g} s")
    result: T = found["result"]
    return result
