"""How a stage ended in a flow: one word, how long it took, and why."""

from typing import Literal, NamedTuple

State = Literal["success", "cached", "failed", "skipped", "cancelled"]


class Outcome(NamedTuple):
    """What became of one stage.

    Args:
        state: `success`: it ran; `cached`: nothing it depends on has changed; `skipped`: a stage before it did not end
            well; `cancelled`: ended from outside.
        seconds: wall time that it took, the last attempt alone.
        reason: why it ran or did not, or what went wrong; one line for people, without secrets.
        last_lines: what it said last, without secrets.
    """

    state: State
    seconds: float = 0.0
    reason: str = ""
    last_lines: tuple[str, ...] = ()
