"""Which settings of a version are not those of a recipe."""

from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from stages.common.errors import AttuneError
from stages.common.params import check_params, load_params
from stages.common.tracking.runs import as_recorded

RECIPES = Path("recipes")


def closest_recipe(params: Mapping[str, str], root: Path) -> tuple[str, dict[str, tuple[str | None, str | None]]]:
    """Return the recipe that the fewest settings differ from, and those settings: key, (recipe's, version's).

    Args:
        params: by dotted name, as MLflow has them.
        root: a checkout, with its recipes.
    """
    found: list[tuple[int, str, dict[str, tuple[str | None, str | None]]]] = []
    for path in sorted((root / RECIPES).glob("*.yaml")):
        try:
            recipe = as_recorded(load_params(path))
        except AttuneError:
            continue
        keys = dict.fromkeys([*recipe, *params])
        pairs = {key: (recipe.get(key), params.get(key)) for key in keys}
        differing = {key: (old, new) for key, (old, new) in pairs.items() if _said(old) != _said(new)}
        found.append((len(differing), path.stem, differing))
    _, name, differing = min(found, key=lambda one: one[:2], default=(0, "", {}))
    return name, differing


def _said(value: str | None) -> str | None:
    """Return a setting; None where it says nothing."""
    return None if value in (None, "None", "{}", "[]") else value


def params_in(text: str) -> dict[str, str]:
    """Return the settings of a params.yaml by dotted name, as MLflow has them.

    Raises:
        AttuneError: if this version of Attune does not understand them.
    """
    return as_recorded(check_params(YAML(typ="safe", pure=True).load(text)))
