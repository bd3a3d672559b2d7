"""Conversations are read in the shapes in which they are found, and refused with the reason where they are none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.text.cleaning import TextCleaning
from stages.tasks.base import Refused
from stages.tasks.causal_lm import TASK
from stages.tasks.conversations import canonical, columns, first_question, read
from tests.chats import label

ASK, SAY = {"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Until six."}
BOTH = [ASK, SAY]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def dumped(value: Any) -> str:
    return json.dumps(value)


@pytest.mark.parametrize(
    ("form", "cells"),
    [
        ("messages", {"answer": dumped(BOTH)}),
        ("messages", {"answer": str(BOTH)}),  # as pandas saves a list in CSV
        (
            "messages",
            {"answer": dumped([ASK, {"role": "assistant", "content": [{"type": "text", "text": "Until six."}]}])},
        ),
        ("messages", {"answer": dumped([{"role": "system", "content": ""}, *BOTH]), "tools": "[]"}),
        (
            "messages",
            {"answer": dumped([[{"sender": "b7", "text": "Open?"}], [{"sender": "a1", "text": "Until six."}]])},
        ),
        ("sharegpt", {"answer": dumped([{"from": "human", "value": "Open?"}, {"from": "gpt", "value": "Until six."}])}),
        ("alpaca", {"question": "Open?", "others": "", "answer": "Until six.", "input": None, "history": None}),
        ("prompt-completion", {"question": "Open?", "answer": "Until six."}),
        ("prompt-completion", {"question": dumped([ASK]), "answer": dumped([SAY])}),
        ("pairs", {"question": "Open?", "answer": dumped(BOTH), "rejected": "No."}),
        ("pairs", {"answer": "\n\nHuman: Open?\n\nAssistant: Until six."}),
    ],
)
def test_a_conversation_is_read_in_any_shape(form: str, cells: dict[str, str | None]) -> None:
    assert json.loads(canonical(read(form, cells))) == BOTH


def test_what_a_shape_has_besides_is_read_too() -> None:
    history = dumped([["Hi.", "Hello."]])
    cells = {
        "question": "Translate",
        "input": "Guten Tag",
        "answer": "Hello",
        "system": "Be brief.",
        "history": history,
    }
    found = json.loads(canonical(read("alpaca", cells)))
    assert [part["content"] for part in found] == ["Be brief.", "Hi.", "Hello.", "Translate\n\nGuten Tag", "Hello"]
    assert first_question(found) == "Translate\n\nGuten Tag", "a greeting asks nothing"
    assert first_question(found[1:3]) == "Hi."
    weighed = dumped([ASK, {**SAY, "weight": 0}, ASK, SAY])
    assert json.loads(canonical(read("messages", {"answer": weighed})))[1] == {**SAY, "train": False}
    lines = [[{"sender": "x", "text": "Open?"}], [{"sender": "y", "text": "Until"}, {"sender": "y", "text": "six."}]]
    assert json.loads(canonical(read("messages", {"answer": dumped(lines)})))[1]["content"] == "Until\nsix."


@pytest.mark.parametrize(
    ("rule", "form", "answer"),
    [
        ("no_answer", "messages", ""),
        ("no_answer", "messages", dumped([ASK])),
        ("no_answer", "messages", dumped([ASK, {**SAY, "train": False}])),
        ("empty_turn", "messages", dumped([ASK, {"role": "assistant", "content": " \n"}])),
        ("role_order", "messages", dumped([SAY, ASK, SAY])),
        ("role_order", "messages", dumped([ASK, ASK, SAY])),
        ("role_order", "messages", dumped([ASK, {"role": "system", "content": "Now be rude."}, SAY])),
        ("tool_calls", "messages", dumped([ASK, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}])),
        ("tool_calls", "sharegpt", dumped([ASK, {"from": "observation", "value": "18 °C"}, SAY])),
        ("bad_messages", "messages", "Until six."),
        ("bad_messages", "messages", "{}"),
        ("bad_messages", "messages", "[" * 5000),
        ("bad_messages", "messages", dumped(["Open?", "Until six."])),
        ("bad_messages", "messages", dumped([{"role": "user"}, SAY])),
        ("bad_messages", "messages", dumped([{"content": "Open?"}, SAY])),
        ("bad_messages", "sharegpt", dumped([{"from": name, "value": "Hi"} for name in ("ann", "bob", "cid")])),
        ("bad_messages", "messages", dumped([ASK, {"role": "assistant", "content": [{"type": "image_url"}]}])),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_rule(rule: str, form: str, answer: str) -> None:
    with pytest.raises(Refused) as refusal:
        canonical(read(form, {"answer": answer}))
    assert refusal.value.rule == rule


def test_columns_are_those_of_the_shape_or_of_params() -> None:
    found, needed = columns("prompt-completion", "question", "reply")
    assert (found["question"], found["answer"], needed) == ("question", "reply", {"question", "answer"})
    found, needed = columns("sharegpt", None, None)
    assert found["answer"] == "conversations" and needed == {"answer"}
    assert columns("pairs", None, None)[1] == {"answer"}  # whose prompt may be in the answers


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.none() | TEXT)
def test_a_label_is_read_as_itself(pairs: list[tuple[str, str]], system: str | None) -> None:
    start = [{"role": "system", "content": system}] if system else []
    turns = [
        {"role": role, "content": said}
        for pair in pairs
        for role, said in zip(("user", "assistant"), pair, strict=True)
    ]
    text = canonical([*start, *turns])
    assert json.loads(text) == [*start, *turns]
    assert TASK.prepared([text], TextCleaning()) == [text]
    cell = json.dumps({"shape": "messages", "row": 1, "answer": text})
    assert TASK.parse_target(cell, None) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "question", "answer"),
    [
        (
            "prompt-completion",
            '[{"speaker":"Ann","text":"Eat?"},{"speaker":"Bob","text":"No."}]',
            "Ann is hungry.",
        ),
        ("prompt-completion", "Human: hello bot\n\nAssistant: hello man", "A greeting."),
        ("alpaca", "List books as JSON.", '[{"author":"Tolkien","text":"The Hobbit"}]'),
        ("alpaca", "Which role?", '{"role":"admin","content":"x"}'),
    ],
)
def test_a_text_that_only_looks_like_a_conversation_stays_a_text(form: str, question: str, answer: str) -> None:
    assert json.loads(canonical(read(form, {"question": question, "answer": answer}))) == [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def test_spellings_that_programs_write_are_read() -> None:
    exported = [{"author": {"role": "user"}, "content": "Hi"}, {"author": {"role": " Assistant "}, "content": "Hello"}]
    assert canonical(read("messages", {"answer": json.dumps(exported)})) == label("Hi", "Hello")
    shouted = {"question": '[{"role": "User", "content": "Open?"}]', "answer": "Until six."}
    assert canonical(read("prompt-completion", shouted)) == label("Open?", "Until six.")
    half = {"question": "\n\nHuman: Open?\n\nAssistant:", "answer": "Until six."}
    assert canonical(read("pairs", half)) == label("Open?", "Until six.")
    for weight in ("0.0", 0.0, "False", False, 0):
        spoken = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No.", "weight": weight}]
        more = [{"role": "user", "content": "So?"}, {"role": "assistant", "content": "Yes."}]
        assert '"train":false' in canonical(read("messages", {"answer": json.dumps([*spoken, *more])})), weight
    with pytest.raises(Refused, match="no role"):
        read("messages", {"answer": '[{"role": ["user"], "content": "Hi"}]'})
