"""Which tokens are learnt is proven; what would train silently wrong is refused, with the reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from stages.common.errors import AttuneError
from stages.ingest.scratch import CHATML
from stages.tasks.base import Refused
from stages.tasks.causal_lm import TASK
from stages.tasks.templates import Template, wording
from tests.chats import PARAMS, SPACE, conversations, label, make_language_model

END = "<|im_end|>"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def tokenizer(base: Path) -> Any:
    return AutoTokenizer.from_pretrained(base)


def template(tokenizer: Any, longest: int = 128, too_long: str = "reject", train_on: str = "all") -> Template:
    return Template(tokenizer, wording(tokenizer, too_long, train_on), longest)


def learnt(made: Template, text: str) -> list[str]:
    found = made.tokens(json.loads(text))
    return [piece for piece, mark in made.view(found) if mark]


def test_answers_are_learnt_with_the_end_of_their_turn_and_nothing_else(tokenizer: Any) -> None:
    text = label("are you open", "until six", "who are you", "a shop", system="be kind")
    assert learnt(template(tokenizer), text) == [f"until six{END}", f"a shop{END}"]
    assert learnt(template(tokenizer, train_on="last"), text) == [f"a shop{END}"]
    muted = json.loads(text)
    muted[2]["train"] = False
    assert learnt(template(tokenizer), json.dumps(muted)) == [f"a shop{END}"]
    found = template(tokenizer).tokens(json.loads(text))
    assert found.learnt[-1] == 1 and found.ids[-1] == tokenizer.eos_token_id  # nothing is read behind the last answer
    assert found.bytes == len("until six" + "a shop")


def test_a_pad_token_that_is_the_end_is_learnt_all_the_same(tokenizer: Any) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    batch = TASK.collator(tokenizer)(
        [{"input_ids": found.ids, "labels": found.learnt} for found in map(
            template(tokenizer).tokens, (json.loads(label("who are you", "a")), json.loads(label("a", "until six"))))]
    )  # fmt: skip
    ends = batch["labels"] == tokenizer.eos_token_id
    assert ends.sum(dim=1).tolist() == [1, 1]
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


@pytest.mark.parametrize(
    ("rule", "changed", "text"),
    [
        ("template_tokens", CHATML, label("are you open", f"until six{END}<|im_start|>system")),
        ("untrained_end", CHATML.replace("<|im_end|>", "</s>"), label("are you open", "until six")),
        ("template_prefix", CHATML.replace("message.content", "(message.content if loop.last else '…')"),
         label("are you open", "until six", "who are you", "a shop")),
        ("template_refuses", "{{ raise_exception('no system') if messages[0].role == 'system' }}" + CHATML,
         label("are you open", "until six", system="be kind")),
        ("untrained_end", CHATML.replace("message.content", "(message.content if message.role == 'user' else '')"),
         label("are you open", "until six")),
        ("too_long", CHATML, label("are you open", "until six " * 40)),
    ],
)  # fmt: skip
def test_what_would_be_learnt_wrongly_is_refused(tokenizer: Any, rule: str, changed: str, text: str) -> None:
    tokenizer.chat_template = changed
    with pytest.raises(Refused) as refusal:
        template(tokenizer, 64).tokens(json.loads(text))
    assert refusal.value.rule == rule


def test_the_oldest_turns_are_dropped_until_the_rest_fits_and_no_answer_is_cut(tokenizer: Any) -> None:
    text = json.loads(label(*["are you open", "until six"] * 9, system="be kind"))
    whole = template(tokenizer, 10_000).tokens(text)
    cut = template(tokenizer, 60, "drop_turns").tokens(text)
    assert cut.dropped and len(cut.ids) <= 60 < len(whole.ids)
    assert tokenizer.decode(cut.ids).startswith("<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user")
    assert template(tokenizer, 60, "drop_turns").tokens(text[: 19 - cut.dropped]).ids == cut.ids
    longer = template(tokenizer, len(cut.ids) + 12, "drop_turns").tokens(text)
    assert longer.dropped <= cut.dropped
    with pytest.raises(Refused, match="over tokenize"):
        template(tokenizer, 10, "drop_turns").tokens(text)


def test_today_is_in_no_token(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ date_string }} {{ strftime_now('%d %b %Y') }}" + CHATML
    made = template(tokenizer)
    assert "01 Jan 2026 01 Jan 2026" in tokenizer.decode(made.tokens(json.loads(label("who are you", "a shop"))).ids)


@pytest.mark.parametrize(("change", "message"), [("chat_template", "no chat template"), ("eos_token", "ends a text")])
def test_a_base_that_cannot_chat_is_refused(
    base: Path, tmp_path: Path, tokenizer: Any, change: str, message: str
) -> None:
    tokenizer.name_or_path = str(tmp_path)
    setattr(tokenizer, change, None)
    with pytest.raises(AttuneError, match=message):
        TASK.wording(tokenizer, PARAMS)


def test_the_report_says_what_is_learnt_and_why_rows_are_out(tokenizer: Any) -> None:
    rows = conversations(20, 0)
    rows = rows.with_columns(label=rows["label"].set(rows["id"] == "0-3", label("hi", f"a{END}")))
    table, rejected, report = TASK.encode(rows, tokenizer, SPACE | TASK.wording(tokenizer, PARAMS), PARAMS)
    assert table.height == 19 and rejected["rule"].to_list() == ["template_tokens"]
    assert report["rejected_because"] == {f"a text holds {END!r}, a mark of the template": 1}
    marks = [mark for row in table["labels"] for mark in row]
    assert (
        report["share_learnt"] == pytest.approx(sum(marks) / len(marks), abs=1e-4)
        and 0.1 < report["share_learnt"] < 0.9
    )
    assert [mark for _, mark in report["pieces"][0]["pieces"]][:2] == [False, True]
