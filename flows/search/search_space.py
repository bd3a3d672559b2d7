"""The search space of `tune.space`, as Optuna draws from it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.search.params_patch import STRATEGY
from stages.common.params import Params
from stages.common.params.strategies import OPTIONS
from stages.common.params.tune import Dimension, number_type

if TYPE_CHECKING:
    from optuna import Trial

DIGITS = 3  # of a number drawn from a range: more would only look like knowledge

Space = Mapping[str, Dimension]


def present(params: Params, space: Space) -> dict[str, Any]:
    """Return the values that the searched parameters have now; None where a section is not given."""
    found: dict[str, Any] = {}
    for key in space:
        value: Any = params
        for part in key.split("."):
            value = getattr(value, part, None)
        found[key] = value
    return found


def stated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return present values as settings: without the options of a strategy that is not the present one."""
    return {key: value for key, value in values.items() if value is not None or key.split(".")[1] not in OPTIONS}


def inside(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that the space holds."""
    return {key: value for key, value in values.items() if _holds(space[key], value)}


def draw(trial: "Trial", space: Space, strategy: str) -> dict[str, Any]:
    """Return a value for each parameter; options of a strategy are drawn only where that strategy is.

    Args:
        trial: Optuna's.
        space: what is searched.
        strategy: that of params, for a space that does not choose among them.
    """
    drawn: dict[str, Any] = {}
    for key in sorted(space, key=lambda key: key != STRATEGY):  # the strategy first; the others as they stand
        option_of = key.split(".")[1]
        if option_of not in OPTIONS or option_of == drawn.get(STRATEGY, strategy):
            drawn[key] = suggest(trial, key, space[key])
    return drawn


def suggest(trial: "Trial", key: str, dimension: Dimension) -> Any:
    """Return a value of one parameter, drawn or (for a trial that is tried again) given."""
    low, high = dimension.low, dimension.high
    if dimension.choices is not None:
        return trial.suggest_categorical(key, dimension.choices)
    assert low is not None and high is not None
    if number_type(key) is int:
        return trial.suggest_int(key, int(low), int(high), step=int(dimension.step or 1), log=dimension.log)
    value = trial.suggest_float(key, low, high, step=dimension.step, log=dimension.log)
    return min(max(float(f"{value:.{DIGITS if dimension.step is None else 12}g}"), low), high)


def _holds(dimension: Dimension, value: Any) -> bool:
    if dimension.choices is not None:
        return any(
            value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in dimension.choices
        )
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None and high is not None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return False
    return step is None or round((value - low) / step, 9).is_integer()
