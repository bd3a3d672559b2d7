"""Conversations through ingest and clean: every row accounted for, and no question in two splits."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stages.clean.__main__ import cleaned
from stages.common.errors import AttuneError
from stages.common.params import CleanParams
from stages.ingest.__main__ import main as ingest_main
from stages.tasks.causal_lm import TASK
from tests.chats import label
from tests.projects import PARAMS, TINY, Project, params_of
from tests.unit.small_records import make_records
from tests.unit.test_clean_filters import applied, listed

BOTH = [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Until six."}]
CHATS = {
    "a.jsonl": "\n".join(json.dumps({"messages": BOTH, "day": f"2026-01-0{n}"}) for n in (1, 2)),
    "b.json": json.dumps([{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}] * 2,
                         indent=1),
    "c.json": json.dumps({"x1": {"messages": BOTH}, "x2": {"messages": BOTH[:1]}}),
    "d.csv": "question,reply\nOpen?,\nOpen?,Until seven.\n",
}  # fmt: skip
FORMATS: dict[str, dict[str, Any]] = {
    "a.jsonl": {"format": "messages", "columns": {"timestamp": "day"}},
    "b.json": {"format": "sharegpt"},
    "c.json": {"format": "messages"},
    "d.csv": {"format": "prompt-completion", "columns": {"text": "question", "label": "reply"}},
}


def ingest(project: Project, names: list[str] | None = None) -> int:
    sources = [{"path": f"data/inbox/{name}", **FORMATS[name]} for name in names or FORMATS]
    project.params(task="causal-lm", ingest={"sources": sources, "base_model": {"scratch": TINY}})
    with pytest.raises(SystemExit) as ended:
        ingest_main()
    return int(ended.value.code or 0)


@pytest.fixture
def inbox(project: Project) -> Project:
    for name, content in CHATS.items():
        project.inbox(name, content)
    return project


def test_files_of_every_shape_become_one_table_and_each_row_is_accounted_for(inbox: Project) -> None:
    assert ingest(inbox) == 0
    raw = pl.read_parquet(inbox.root / "data/raw/records.parquet")
    rejected = pl.read_parquet(inbox.root / "data/raw/rejected.parquet")
    assert (raw.height, rejected.height) == (6, 2)
    assert set(raw["text"]) == {"Open?", "Hi"} and raw["id"].n_unique() == 6
    assert raw["timestamp"].drop_nulls().to_list() == ["2026-01-01", "2026-01-02"]
    assert json.loads(raw.filter(text="Hi")["label"][0])[1] == {"role": "assistant", "content": "Hello"}
    assert rejected["rule"].to_list() == ["no_answer"] * 2
    assert (inbox.root / "models/base/chat_template.jinja").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"messages": []}\n{"messages": [\n', "a.jsonl:2: not JSON"),
        ("b.json", '[\n {"conversations": []},\n {"conversations" 1}\n]', "b.json:3: not JSON"),
        ("b.json", '[{"conversations": []}, 7]', "b.json: row 2 is a JSON int"),
        ("a.jsonl", '{"dialog": [], "day": "1"}', "has no column 'messages' (for label)"),
        ("c.json", json.dumps([{"messages": "Open?"}] * 3), "row 1: this is no list of messages"),
        ("d.csv", "question,answer\nOpen?,Until six.\n", "has no column 'reply' (for label)"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_place(
    inbox: Project, capsys: pytest.CaptureFixture[str], name: str, content: str, message: str
) -> None:
    inbox.inbox(name, content)
    assert ingest(inbox, [name]) == 1
    assert message in capsys.readouterr().err


def test_other_answers_to_a_question_stay_and_equal_or_nearly_equal_conversations_do_not() -> None:
    long = "Do you repair the tyres of a bicycle that is older than I am, and what would it cost me?"
    labels = [label("Open?", "Until six."), label("Open?", "Until seven."), label("Open?", "Until six.")]
    labels += [label(long, "Yes, while you wait, for ten."), label(long, "Yes, while you wait, for ten!")]
    rows = make_records([{"text": TASK.texts(pl.Series([text]))[0], "label": text} for text in labels])
    kept, out = applied(rows, CleanParams(length={"min": 1}), listed(), TASK)
    assert kept["label"].to_list() == [labels[0], labels[1], labels[3]]
    assert out["rule"].sort().to_list() == ["exact_duplicate", "near_duplicate"]


def test_nearly_the_same_first_questions_are_one_group_in_any_order() -> None:
    asked = "Could you please tell me until when you are open on a Saturday in spring{}"
    texts = [
        label(asked.format("?"), "Six."),
        label(asked.format("??"), "Seven."),
        label("Else?", "No."),
        label("Else?", "So."),
    ]
    rows = make_records([{"text": f"t{number}", "label": text} for number, text in enumerate(texts)])
    rows = rows.with_columns(group=pl.Series([None, "mine", "mine", None]))
    groups = TASK.grouped(rows, CleanParams())["group"]
    assert groups.n_unique() == 1, "the group of the rows joins both questions"
    apart = TASK.grouped(rows.with_columns(group=pl.lit(None, pl.String)), CleanParams())
    assert apart["group"].to_list()[0] == apart["group"].to_list()[1] != apart["group"].to_list()[2]
    again = TASK.grouped(rows.reverse().with_columns(group=pl.lit(None, pl.String)), CleanParams()).reverse()
    assert again["group"].to_list() == apart["group"].to_list()
    exact = TASK.grouped(
        apart.with_columns(group=pl.lit(None, pl.String)), CleanParams(near_duplicates={"enabled": False})
    )
    assert exact["group"].n_unique() == 3


def test_questions_that_are_one_once_they_are_clean_are_one_and_greetings_ask_nothing() -> None:
    asked = [("What’s new with you?",), ("What's  new with you?",), ("Hi",), ("Hi",)]
    texts = [label(*ask, "Much.") for ask in asked[:2]]
    texts += [label("Hi", "Hello!", f"Where is my {what} now?", "Here.") for what in ("parcel", "invoice")]
    rows = make_records([{"text": f"t{number}", "label": text} for number, text in enumerate(texts)])
    groups = TASK.grouped(rows, CleanParams(near_duplicates={"enabled": False}))["group"]
    assert groups[0] == groups[1] and groups.n_unique() == 3


def test_a_row_whose_group_is_in_an_official_test_stays_where_the_file_says() -> None:
    texts = [
        ("Open on Monday?", "Yes, we are, until six.", "test"),
        ("Do you sell bells?", "A dozen of kinds.", "train"),
    ]
    texts += [("Do you sell bells?", "Only in spring, and red ones.", "test")]
    rows = make_records([{"text": ask, "label": label(ask, say), "split": to} for ask, say, to in texts])
    kept, out = applied(rows.with_columns(group=pl.lit("mine")), CleanParams(length={"min": 1}), listed(), TASK)
    assert out["rule"].to_list() == ["in_other_split"] and out["text"].to_list() == ["Do you sell bells?"]
    assert kept["split"].to_list() == ["test", "test"]
    apart = rows.head(2).with_columns(group=pl.lit("mine"))  # one group, torn by the official split
    assert applied(apart, CleanParams(length={"min": 1}), listed(), TASK)[1].is_empty()


def test_a_question_of_an_official_test_is_taken_out_of_train() -> None:
    texts = [("Open?", "Six.", "test"), ("Open?", "Seven.", "train"), ("Else?", "No.", "train")]
    rows = make_records([{"text": ask, "label": label(ask, say), "split": split} for ask, say, split in texts])
    kept, out = applied(rows, CleanParams(length={"min": 1}), listed(), TASK)
    assert out["rule"].to_list() == ["in_other_split"] and kept["split"].to_list() == ["test", "train"]


def test_code_and_markdown_stay_and_personal_data_are_masked_if_that_is_asked_for() -> None:
    code = "Use `<b>`:\n\n    if x &lt; 1:  # a@b.example\n        return"
    rows = make_records([{"text": "How?", "label": label("How?", code)}])
    kept = rows.with_columns(TASK.cleaned(rows["label"], CleanParams().text_cleaning))
    assert json.loads(kept["label"][0])[1]["content"] == code
    masked = TASK.cleaned(rows["label"], CleanParams(pii={"kinds": ["email"]}).text_cleaning)
    assert json.loads(masked[0])[1]["content"] == code.replace("a@b.example", "[EMAIL]")
    assert cleaned(rows, CleanParams().text_cleaning)[0]["label"][0] == rows["label"][0]


NOT_ASKED = {"generation": {"rows": 0}}


def gates(**some: Any) -> dict[str, Any]:
    return {"register": {"model_name": "m", "gates": some}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean": {"strip_markdown": True}}, "clean.strip_markdown: is a knob of the tasks"),
        ({"augment": {"synonyms": {"share": 0.5}}}, "augment"),
        ({"finetune": {"strategy": "head"}}, "'head' is a knob of the tasks"),
        ({"finetune": {"strategy": "prefix"}}, "'prefix' is a knob of the tasks"),
        ({"finetune": {"metric_for_best_model": "rouge_l"}}, "must be one of 'nll', 'perplexity', 'token_accuracy', '"),
        ({"tune": {"metric": "bits_per_byte"}}, "tune.metric: must be one of 'nll', "),
        ({"evaluate": NOT_ASKED, **gates(maximum={"empty": 0.1})}, "empty is of generated answers"),
        ({"evaluate": NOT_ASKED, **gates(champion={"metric": "chrf"})}, "chrf is of generated answers"),
        (gates(retention=0.1), "register.gates.retention: needs general texts"),
        ({"export": {"onnx": True}}, "export.onnx: is a knob"),
        ({"evaluate": {"attributions": {"errors": 3}}}, "evaluate.attributions"),
        ({"ingest": PARAMS["ingest"]}, "has to be a shape of conversations"),
    ],
)
def test_what_does_not_suit_language_models_is_said_before_anything_runs(change: dict[str, Any], message: str) -> None:
    good = {"sources": [{"path": "data/inbox/a.jsonl", "format": "messages"}], "base_model": {"scratch": TINY}}
    params = params_of(task="causal-lm", ingest=good)
    assert not params.export.onnx and params.tokenize.max_length == 32 and params.evaluate.behaviour.invariance == []
    with pytest.raises(AttuneError, match="fault") as error:
        params_of(**{"task": "causal-lm", "ingest": good, **change})
    assert message in str(error.value)


def test_the_shapes_are_of_language_models_alone(tmp_path: Path) -> None:
    with pytest.raises(AttuneError, match=r"'messages' is a knob of the task causal-lm"):
        params_of(ingest={**PARAMS["ingest"], "sources": [{"path": "data/inbox/a.jsonl", "format": "messages"}]})
