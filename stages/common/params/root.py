"""The whole of `params.yaml`, and the sections of a few keys."""

from collections.abc import Collection, Mapping
from functools import reduce
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from stages.common.params.augment import AugmentParams
from stages.common.params.clean import CleanParams
from stages.common.params.evaluate import EvaluateParams
from stages.common.params.finetune import FinetuneParams
from stages.common.params.ingest import IngestParams
from stages.common.params.register import RegisterParams
from stages.common.params.section import Faults, Section, key, set_keys, wrong_word
from stages.common.params.sources import Shape
from stages.common.params.tasks import TaskSpec, foreign_knob, task_names, task_spec, with_defaults
from stages.common.params.tune import TuneParams


class TokenizeParams(Section):
    """How texts become token ids."""

    max_length: int = key(128, "Longest sequence in tokens; the rest is cut off and counted.", ge=4, le=1_048_576)
    too_long: Literal["reject", "drop_turns"] = key(
        "reject",
        "What is done with a conversation that is over max_length: out, or without its oldest turns; no answer is cut.",
    )
    train_on: Literal["all", "last"] = key(
        "all", "Which answers of a conversation are learnt, but for those that say `train: false` themselves."
    )


class ExportParams(Section):
    """ONNX, ONNX with weights of 8 bits, and weights in bfloat16."""

    onnx: bool = key(True, "Write the model as ONNX, for onnxruntime.")
    int8: bool = key(True, "Quantize the ONNX model to 8 bits, dynamically.")
    bf16: bool = key(False, "Write the weights in bfloat16 too: half as large, as others load them.")
    allowed_drop: float = key(
        0.003,
        "int8 and bf16 are offered if the task's main score on the test rows gets worse by no more than this; "
        "of a score in units of the labels, such as MAE, by no more than this share of it.",
        ge=0.0,
    )

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


LIMITS = ("minimum", "maximum")


def _known_task(name: str) -> str:
    if name not in task_names():
        raise ValueError(wrong_word(name, task_names()))
    return name


def _at(section: Section, names: Collection[str]) -> tuple[list[tuple[str, ...]], list[Any]]:
    """Return the keys that lead to values by their names (clean.length.min), and the values."""
    paths = [tuple(name.split(".")) for name in names]
    return paths, [reduce(getattr, path, section) for path in paths]


class Params(Section):
    """The whole of `params.yaml`."""

    task: Annotated[str, AfterValidator(_known_task)] = key(
        "text-classification",
        "What the model learns to do (docs/tasks.md).",
        json_schema_extra=lambda schema: schema.update(enum=task_names()),
    )
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

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, data: Any) -> Any:
        known = isinstance(data, Mapping) and data.get("task") in task_names()
        return with_defaults(data, task_spec(data["task"]).defaults) if known else data

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
        if "ingest.sources.format: messages" in self.spec.knobs:
            shapes = ", ".join(get_args(Shape))
            for number, source in enumerate(sources):
                if not source.shape:
                    yield f"ingest.sources.{number}.format", f"has to be a shape of conversations: one of {shapes}"
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
        yield from self._label_faults()
        yield from self._knob_faults()
        yield from self._word_faults()
        yield from self._limit_faults()

    def _label_faults(self) -> Faults:
        gates, tests = self.register_.gates, self.evaluate.behaviour
        for name in sorted({*gates.behaviour} - {*tests.names}):
            yield "register.gates.behaviour", f"{name!r} is no test of evaluate.behaviour ({', '.join(tests.names)})"
        named: list[tuple[tuple[str, ...], str]] = [
            (("register", "gates", "recall", name), name) for name in gates.recall
        ]
        for kind in ("minimum", "direction"):
            for number, test in enumerate(getattr(tests, kind)):
                named.append((("evaluate", "behaviour", kind, str(number), "label"), test.label))
        labels, moved = sorted({*(self.ingest.labels or {}).values()}), "evaluate.behaviour.direction.label"
        for keys, label in named:
            if not label and moved in self.spec.knobs:
                yield keys, "is required: the label whose probability must move"
            elif label and labels and label not in labels:
                yield keys, f"there is no label {label!r} in ingest.labels ({', '.join(labels)})"

    def _knob_faults(self) -> Faults:
        """Yield what is set that only other tasks have, at the knob that it belongs to."""
        own = self.spec.defaults
        given = {path: value for path, value in set_keys(self) if ".".join(path) not in own}
        given |= {path: value for path, value in zip(*_at(self, own), strict=True) if value != own[".".join(path)]}
        found = [foreign_knob(self.task, path, value) for path, value in given.items()]
        yield from dict(fault for fault in found if fault).items()
        for name in self.tune.space:
            if fault := foreign_knob(self.task, name.split("."), None):
                yield ("tune", "space", name), fault[1]

    def _word_faults(self) -> Faults:
        """Yield the names of losses, scores and baselines that the task does not have."""
        spec, finetune, gates = self.spec, self.finetune, self.register_.gates
        scores, searched = [score.name for score in spec.scores], self.tune.space.get("finetune.loss")
        trained = [score.name for score in spec.scores if score.measured == "finetune"]
        words: list[tuple[str | tuple[str, ...], object, Collection[str]]] = [
            ("finetune.loss", finetune.loss, spec.losses),
            ("finetune.metric_for_best_model", finetune.metric_for_best_model, [*trained, "loss"]),
            ("tune.metric", self.tune.metric, [*trained, "loss"]),
            ("register.gates.champion.metric", gates.champion and gates.champion.metric, scores),
            ("register.gates.slices.metric", gates.slices and gates.slices.metric, scores[:2]),
        ]
        words += [(f"evaluate.baselines.{n}", name, spec.baselines) for n, name in enumerate(self.baselines)]
        words += [(f"register.gates.{kind}.{name}", name, scores) for kind in LIMITS for name in getattr(gates, kind)]
        words += [
            (("tune", "space", "finetune.loss"), loss, spec.losses) for loss in (searched and searched.choices) or ()
        ]
        for where, word, allowed in words:
            if word is not None and word not in allowed:
                yield where, wrong_word(word, allowed)
        generated = {score.name for score in spec.scores if score.measured == "generate"}
        for where, word, _ in words if not self.evaluate.generation.rows else ():
            if "gates" in where and word in generated:
                yield where, f"{word} is of generated answers: set evaluate.generation.rows above 0"
        if gates.retention is not None and not self.ingest.retention_texts:
            yield "register.gates.retention", "needs general texts: name some in ingest.retention_texts"
        for name in sorted({*gates.beat_baselines} - {*self.baselines}):
            yield (
                "register.gates.beat_baselines",
                f"{name!r} is not among evaluate.baselines: {', '.join(self.baselines)}",
            )

    def _limit_faults(self) -> Faults:
        """Yield limits of scores that are the wrong way round, or beyond what the score can be."""
        gates, scores = self.register_.gates, {score.name: score for score in self.spec.scores}
        metric, greater = self.metric_for_best_model, self.finetune.greater_is_better
        if greater not in (None, metric in scores and scores[metric].greater_is_better):
            yield "finetune.greater_is_better", f"is the wrong way round for {metric}: set it to null"
        limits: list[tuple[str, str, float | None]] = [
            ("export.allowed_drop", self.spec.main.name, self.export.allowed_drop)
        ]
        if gates.champion:
            limits.append(("register.gates.champion.allowed_drop", self.champion_metric, gates.champion.allowed_drop))
        for kind in LIMITS:
            limits += [(f"register.gates.{kind}.{name}", name, value) for name, value in getattr(gates, kind).items()]
            limits.append((f"register.gates.slices.{kind}", self.slices_metric, getattr(gates.slices, kind, None)))
        for where, name, value in limits:
            if value is None or not (score := scores.get(name)):
                continue
            right, wrong = LIMITS if score.greater_is_better else LIMITS[::-1]
            if wrong in where:
                more = "more" if score.greater_is_better else "less"
                yield where, f"{more} of {name} is better: give {where.replace(wrong, right)} instead"
            elif not score.unbounded and not 0 <= value <= 1:
                yield where, f"must be of 0 to 1, as {name} is, not {value:g}"

    @property
    def spec(self) -> TaskSpec:
        """The facts of the task."""
        return task_spec(self.task)

    @property
    def metric_for_best_model(self) -> str:
        """The validation score, or `loss`, that picks the epoch to keep."""
        return self.finetune.metric_for_best_model or self.spec.main.name

    @property
    def baselines(self) -> list[str]:
        """The baselines that are scored."""
        return [*self.spec.baselines] if self.evaluate.baselines is None else self.evaluate.baselines

    @property
    def answer_metric(self) -> str:
        """The score of generated answers that is compared with baselines that only answer."""
        return "rouge_l" if self.evaluate.answer == "text" else "exact_match"

    @property
    def champion_metric(self) -> str:
        """The score by which a model is compared with the champion, or with the other side of a review."""
        gate = self.register_.gates.champion
        return (gate and gate.metric) or self.spec.main.name

    @property
    def slices_metric(self) -> str:
        """The score that the gate of the slices looks at."""
        gate = self.register_.gates.slices
        return (gate and gate.metric) or self.spec.main.name

    def section(self, name: str) -> Section:
        """Return the section of the stage `name`."""
        return getattr(self, "register_" if name == "register" else name)
