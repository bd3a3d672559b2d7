"""The whole of `params.yaml`, and the sections of a few keys."""

from typing import Literal

from pydantic import Field

from stages.common.params.augment import AugmentParams
from stages.common.params.clean import CleanParams
from stages.common.params.evaluate import EvaluateParams
from stages.common.params.finetune import FinetuneParams
from stages.common.params.ingest import IngestParams
from stages.common.params.register import RegisterParams
from stages.common.params.section import Faults, Section, Share, key
from stages.common.params.tune import TuneParams


class TokenizeParams(Section):
    """How texts become token ids."""

    max_length: int = key(128, "Longest sequence in tokens; the rest is cut off and counted.", ge=4, le=4096)


class ExportParams(Section):
    """ONNX, and ONNX with weights of 8 bits."""

    onnx: bool = key(True, "Write the model as ONNX, for onnxruntime.")
    int8: bool = key(True, "Quantize the ONNX model to 8 bits, dynamically.")
    allowed_drop: Share = key(0.003, "int8 is offered if its accuracy on the test rows falls by no more than this.")

    def _faults(self) -> Faults:
        if self.int8 and not self.onnx:
            yield "int8", "is made of the ONNX model: set onnx: true, or int8: false"


class ReviewParams(Section):
    """What `make review` shows, and what it takes for the same model."""

    min_agreement: float = key(
        0.99,
        "Least share of test rows with the same prediction for a model trained on another kind of machine "
        "to count as equal; on the same kind, only the same bytes do.",
        ge=0.9,
        le=1.0,
    )
    examples: int = key(10, "Rows listed of each kind: improved, regressed, added, relabelled.", ge=0, le=200)


class TrackingParams(Section):
    """MLflow's side of the matter; belongs to no stage, so changing it re-runs nothing."""

    experiment_name: str = key("attune", "MLflow experiment of the runs.", min_length=1, max_length=200)
    run_name: str | None = key(None, "Name of the MLflow run; null: made of model and settings.")


class Params(Section):
    """The whole of `params.yaml`."""

    task: Literal["text-classification"] = key("text-classification", "What the model learns to do.")
    seed: int = key(13, "Seed of everything random.", ge=0, le=2**32 - 1)
    ingest: IngestParams = Field(description="Where records and base model come from.")
    clean: CleanParams = key(CleanParams(), "Repair, rejection, deduplication, split.")
    augment: AugmentParams = key(AugmentParams(), "Extra training rows.")
    tokenize: TokenizeParams = key(TokenizeParams(), "From texts to token ids.")
    finetune: FinetuneParams = key(FinetuneParams(), "Training.")
    export: ExportParams = key(ExportParams(), "Forms of the model that serve faster.")
    evaluate: EvaluateParams = key(EvaluateParams(), "Scores and baselines.")
    register_: RegisterParams = Field(alias="register", description="Gates and registry.")
    tune: TuneParams = key(TuneParams(), "Search over parameters of finetune.")
    review: ReviewParams = key(ReviewParams(), "What a review shows and how it judges.")
    tracking: TrackingParams = key(TrackingParams(), "MLflow experiment.")

    def _faults(self) -> Faults:
        sources, scratch = self.ingest.sources, self.ingest.base_model.scratch
        if scratch and self.tokenize.max_length > (most := scratch.max_position_embeddings):
            yield "tokenize.max_length", f"is over the scratch model's max_position_embeddings ({most})"
        columns = {"source", "group"}.union(*(source.columns.extra for source in sources))
        if self.clean.label_issues.action == "flag":
            columns.add("suspect")
        for name in sorted({*self.evaluate.slices.columns} - columns):
            fix = "set clean.label_issues.action: flag" if name == "suspect" else "add it to columns.extra of a source"
            yield "evaluate.slices.columns", f"{name!r} is none of {', '.join(sorted(columns))}: {fix}"
        if self.clean.split.by == "time" and not any(source.columns.timestamp for source in sources):
            yield "clean.split.by", "is time, but no source has columns.timestamp"
        augment, resources = self.augment, self.ingest.resources
        fills_up = augment.balance.target > 0 and augment.balance.method == "synonyms"
        for enabled, method, resource in (
            (augment.synonyms.share > 0, "synonyms", resources.wordnet),
            (fills_up, "balance", resources.wordnet),
            (augment.contextual.share > 0, "contextual", resources.masked_lm),
            (augment.back_translation.share > 0, "back_translation", resources.translation),
        ):
            if enabled and resource is None:
                yield f"augment.{method}", "is on, and its data are not among ingest.resources: see docs/augment.md"
        for name in sorted({*self.register_.gates.beat_baselines} - {*self.evaluate.baselines}):
            yield "register.gates.beat_baselines", f"{name!r} is not among evaluate.baselines"
        tests = self.evaluate.behaviour
        for name in sorted({*self.register_.gates.behaviour} - {*tests.names}):
            yield "register.gates.behaviour", f"{name!r} is no test of evaluate.behaviour ({', '.join(tests.names)})"
        labels = sorted({*(self.ingest.labels or {}).values()})
        for kind in ("minimum", "direction"):
            for number, test in enumerate(getattr(tests, kind) if labels else ()):
                if test.label not in labels:
                    reason = f"there is no label {test.label!r} in ingest.labels ({', '.join(labels)})"
                    yield f"evaluate.behaviour.{kind}.{number}.label", reason

    def section(self, name: str) -> Section:
        """Return the section of the stage `name`."""
        return getattr(self, "register_" if name == "register" else name)
