"""Work that may take only so long: the server that it asks may be away."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do work in a thread of its own, in the caller's context, and return its result.

    A thread cannot be ended: one that is late goes on unheard, and does not keep the program from ending.

    Raises:
        TimeoutError: if it takes longer.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)
