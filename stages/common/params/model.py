"""The sections of `params.yaml` from `tokenize` on, and the whole."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.common.params.augment import AugmentParams
from stages.common.params.base import Section
from stages.common.params.clean import CleanParams
from stages.common.params.evaluate import EvaluateParams
from stages.common.params.export import ExportParams
from stages.common.params.finetune import FinetuneParams
from stages.common.params.register import RegisterParams
from stages.common.params.review import ReviewParams
from stages.common.params.sources import IngestParams
from stages.common.params.tune import TuneParams


class TokenizeParams(Section):
    """From texts to token ids."""

    max_length: int = Field(
        128, ge=4, le=4096, description="Longest sequence in tokens; the rest is cut off and counted."
    )


class TrackingParams(Section):
    """MLflow's side of the matter; belongs to no stage, so changing it re-runs nothing."""

    experiment_name: str = Field("attune", min_length=1, max_length=200, description="MLflow experiment of the runs.")
    run_name: str | None = Field(None, description="Name of the MLflow run; null: made of model and settings.")


class Params(Section):
    """The whole of `params.yaml`."""

    task: Literal["text-classification"] = Field("text-classification", description="What the model learns to do.")
    seed: int = Field(13, ge=0, le=2**32 - 1, description="Seed of everything random.")
    ingest: IngestParams = Field(description="Where records and base model come from.")
    clean: CleanParams = Field(CleanParams(), description="Repair, rejection, deduplication, split.")
    augment: AugmentParams = Field(AugmentParams(), description="Extra training rows.")
    tokenize: TokenizeParams = Field(TokenizeParams(), description="From texts to token ids.")
    finetune: FinetuneParams = Field(FinetuneParams(), description="Training.")
    export: ExportParams = Field(ExportParams(), description="Forms of the model that serve faster.")
    evaluate: EvaluateParams = Field(EvaluateParams(), description="Scores and baselines.")
    register_: RegisterParams = Field(alias="register", description="Gates and registry.")
    tune: TuneParams = Field(TuneParams(), description="Search over parameters of finetune.")
    review: ReviewParams = Field(ReviewParams(), description="What a review shows and how it judges.")
    tracking: TrackingParams = Field(TrackingParams(), description="MLflow experiment.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        scratch = self.ingest.base_model.scratch
        if scratch and self.tokenize.max_length > scratch.max_position_embeddings:
            raise ValueError(
                f"tokenize.max_length ({self.tokenize.max_length}) is over the scratch model's "
                f"max_position_embeddings ({scratch.max_position_embeddings})"
            )
        known = {"source", "group"}.union(*(source.columns.extra for source in self.ingest.sources))
        if self.clean.label_issues.action == "flag":
            known.add("suspect")
        unknown = [name for name in self.evaluate.slices.columns if name not in known]
        if unknown:
            flag, extra = "set clean.label_issues.action: flag", "add it to columns.extra of a source"
            raise ValueError(
                f"evaluate.slices.columns names {unknown[0]!r}, which the records do not have "
                f"(they have {', '.join(sorted(known))}): {flag if unknown[0] == 'suspect' else extra}"
            )
        if self.clean.split.by == "time" and not any(source.columns.timestamp for source in self.ingest.sources):
            raise ValueError("clean.split.by is time, but no source has columns.timestamp")
        self._check_resources()
        missing = [name for name in self.register_.gates.beat_baselines if name not in self.evaluate.baselines]
        if missing:
            raise ValueError(
                f"register.gates.beat_baselines names {missing[0]!r}, which evaluate.baselines does not score"
            )
        self._check_behaviour()
        return self

    def _check_behaviour(self) -> None:
        behaviour, gated = self.evaluate.behaviour, self.register_.gates.behaviour
        missing = [name for name in gated if name not in behaviour.names]
        if missing:
            raise ValueError(
                f"register.gates.behaviour names {missing[0]!r}, which is no test of evaluate.behaviour "
                f"(they are {', '.join(behaviour.names) or 'none'})"
            )
        labels = set(self.ingest.labels.values()) if self.ingest.labels else set()
        tests = {test.name: test.label for test in behaviour.minimum}
        tests |= {test.name: test.label for test in behaviour.direction}
        for name, label in tests.items():
            if labels and label not in labels:
                raise ValueError(
                    f"evaluate.behaviour, test {name!r}: the label {label!r} is none of "
                    f"ingest.labels ({', '.join(sorted(labels))})"
                )

    def _check_resources(self) -> None:
        augment, resources = self.augment, self.ingest.resources
        balance = augment.balance.target > 0 and augment.balance.method == "synonyms"
        for wanted, method, resource, given in (
            (augment.synonyms.share > 0, "synonyms", "wordnet", resources.wordnet),
            (balance, "balance with method: synonyms", "wordnet", resources.wordnet),
            (augment.contextual.share > 0, "contextual", "masked_lm", resources.masked_lm),
            (augment.back_translation.share > 0, "back_translation", "translation", resources.translation),
        ):
            if wanted and given is None:
                raise ValueError(
                    f"augment.{method} is on, but ingest.resources.{resource} does not say where its data comes from: "
                    "see docs/augment.md"
                )

    def section(self, name: str) -> Section:
        """Return the section of the stage `name`.

        Raises:
            KeyError: if there is no such section.
        """
        attribute = "register_" if name == "register" else name
        value = getattr(self, attribute, None)
        if not isinstance(value, Section):
            raise KeyError(name)
        return value
