"""The model card: what the model is, what it was trained on, how good it is, and its limits."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.display import display, visible
from stages.common.pages.templates import environment
from stages.common.params import Params
from stages.common.params.finetune import ADAPTERS
from stages.register.gates import Verdict

MAX_NAME = 80  # characters of a name that comes out of the data


def model_card(
    params: Params,
    scores: Mapping[str, Any],  # content of `reports/scores.json`
    verdicts: Sequence[Verdict],
    manifest: Mapping[str, Any],  # content of `data/raw/manifest.json`
    cleaned: Mapping[str, Any],  # content of `reports/clean.json`
    augmented: Mapping[str, int],  # rows that augmentation added to train, by method
    export: Mapping[str, Any],  # content of `reports/export.json`
    slices: pl.DataFrame,  # `reports/plots/slices.csv`
) -> str:
    """Return the card as Markdown with the metadata block of the Hugging Face Hub."""
    main = params.spec.headline[0]
    templates = environment(Path(__file__).parent)
    templates.autoescape = False  # Markdown: what stems from the data goes through `cell` or `code`
    templates.keep_trailing_newline = True
    templates.filters |= {
        "cell": cell,
        "code": lambda text: f"`{' '.join(visible(text).split()).replace('`', chr(39))}`",
        "short": lambda text: display(text, MAX_NAME, None),
        "score": _number("{:.4f}"),
        "change": _number("{:+.4f}"),
        "share": _number("{:.1%}"),
        "mib": lambda size: "–" if size is None else f"{size / 2**20:.1f} MiB",
    }
    templates.globals["row"] = lambda *cells: f"| {' | '.join(map(str, cells))} |"
    return templates.get_template("card.md.j2").render(
        params=params,
        adapters=ADAPTERS,
        names=sorted({name for split in cleaned["splits"].values() for name in split["labels"]}),
        headline=params.spec.headline,
        manifest=manifest,
        cleaned=cleaned,
        augmented=augmented,
        scores=scores,
        slices=slices.sort(main.name, descending=not main.greater_is_better, maintain_order=True).to_dicts(),
        export=export,
        verdicts=verdicts,
        settings=params.finetune.model_dump(mode="json"),
    )


def cell(text: str) -> str:
    """Return text on one line that can neither end a table cell nor start markup."""
    return re.sub(r"([\\`*_\[\]<>&|~$])", r"\\\1", " ".join(visible(text).split()))


def _number(pattern: str) -> Callable[[float | None], str]:
    return lambda value: "–" if value is None else pattern.format(value)
