"""The gates: one line each, with value, limit and verdict."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stages.common.params.model import ChampionGate, Gates


@dataclass(frozen=True)
class Verdict:
    """What a gate found; `value` and `limit` are None where there was nothing to compare."""

    gate: str
    value: float | None
    limit: float | None
    passed: bool
    reason: str

    def line(self) -> str:
        """Return the verdict as a line for the terminal."""
        return f"{'passed' if self.passed else 'FAILED'}  {self.gate}: {self.reason}"

    def as_report(self) -> dict[str, Any]:
        """Return the verdict as it stands in the report."""
        return asdict(self)


def minimum_and_baselines(gates: Gates, metrics: Mapping[str, Any]) -> list[Verdict]:
    """Judge the gates that need this model's scores alone."""
    verdicts = []
    for metric, limit in gates.minimum.items():
        value = metrics[metric]
        passed = value >= limit
        reason = f"{metric} {value:.4f} is {'at least' if passed else 'under'} {limit:.4f}"
        verdicts.append(Verdict(f"minimum {metric}", value, limit, passed, reason))
    for name in gates.beat_baselines:
        value, limit = metrics["macro_f1"], metrics["baselines"][name]["macro_f1"]
        passed = value > limit
        reason = f"macro_f1 {value:.4f} is {'above' if passed else 'not above'} the baseline's {limit:.4f}"
        verdicts.append(Verdict(f"beat {name}", value, limit, passed, reason))
    return verdicts


def no_other_champion(gate: ChampionGate) -> Verdict:
    """Judge a model where no other one is in use."""
    return Verdict("champion", None, None, True, f"no other champion to compare {gate.metric} with")


def remembered(gate: ChampionGate, kept: str | None) -> Verdict:
    """Judge the champion itself: as when it was promoted, or as the first one if the gate was another then."""
    found = json.loads(kept) if kept else {}
    if found.get("verdict") and found.get("settings") == gate.model_dump():
        return Verdict(**found["verdict"])
    return no_other_champion(gate)


def unknown_champion() -> Verdict:
    """Judge a model where the registry does not answer: not promoted, since nobody knows what it would replace."""
    return Verdict("champion", None, None, False, "the registry cannot be reached; run `make register` when it can")


def other_labels() -> Verdict:
    """Judge a model whose champion predicts other labels."""
    reason = "the champion has other labels; give this model its own register.model_name, or set gates.champion: null"
    return Verdict("champion", None, None, False, reason)


def too_few_fresh_rows(fresh: int, rows: int, needed: int) -> Verdict:
    """Judge a model where the champion was trained on nearly all the test rows."""
    reason = f"the champion has seen all but {fresh} of the {rows} test rows, and a comparison needs {needed}"
    reason += "; keep the seed and the split, or set gates.champion: null once"
    return Verdict("champion", None, None, False, reason)


def against_champion(gate: ChampionGate, value: float, champion: float, rows: int) -> Verdict:
    """Judge a model beside the champion, both scored on the same rows, which neither was trained on."""
    limit = round(champion - gate.allowed_drop, 6)
    passed = value >= limit
    reason = f"{gate.metric} {value:.4f} is {'at least' if passed else 'under'} {limit:.4f}"
    reason += f" (champion {champion:.4f} on the {rows} test rows that it was not trained on)"
    return Verdict("champion", value, limit, passed, reason)
