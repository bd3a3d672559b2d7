"""What a language model answers: the same in any batch, as its template was, and judged as foreign code judges it."""

import json
import random
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import polars as pl
import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows.predict import predict
from flows.prediction.request import Request
from stages.common.errors import AttuneError
from stages.common.params import EvaluateParams
from stages.common.text.cleaning import FILE as TEXT_CLEANING
from stages.common.text.cleaning import TextCleaning
from stages.serving.answers import Question, answers
from stages.serving.backends import Package, Predictor
from stages.tasks import answer_scores, generation
from stages.tasks.base import Refused
from stages.tasks.causal_lm import TASK
from stages.tasks.generation import Sampling, Speaker
from stages.tasks.language_models import ChatTokens, load, of_texts
from stages.tasks.predicted import AnswerDecision, reference
from tests.chats import PARAMS, SPACE, conversations, label, make_language_model

WORDS = [*"the shop is open until six and we repair tyres while you wait".split(), ",", "ask"]  # noqa: SIM905


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chatting(make_language_model(tmp_path_factory.mktemp("base"), seed=3))


def chatting(folder: Path) -> Path:
    """Return a folder as a training leaves it, with weights that answer this and that."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    for name, weights in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weights, std=0.4)
    model.save_pretrained(folder)
    TASK.finished(None, SPACE | TASK.wording(AutoTokenizer.from_pretrained(folder), PARAMS), folder)
    return folder


def speaker_of(folder: Path) -> Speaker:
    return Speaker(AutoModelForCausalLM.from_pretrained(folder).eval(), ChatTokens(folder))


def random_answers(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, 14))) for _ in range(count)]


def test_eight_rows_at_once_are_answered_as_one_by_one_and_as_transformers_does(base: Path) -> None:
    speaker = speaker_of(base)
    prompts = [speaker.prompt(json.loads(text)) for text in conversations(12, 5)["label"]]
    together = speaker.answers(prompts, 20)
    assert together == [speaker.answers([prompt], 20)[0] for prompt in prompts]
    ids = torch.tensor([prompts[0]])
    tokens = speaker.model.generate(ids, do_sample=False, max_new_tokens=20, eos_token_id=2)[0, len(prompts[0]) :]
    assert together[0]["answer"] == speaker.tokenizer.decode(tokens, skip_special_tokens=True)
    assert len({one["answer"] for one in together}) > 1 and {one["finish"] for one in together} <= {"stop", "length"}


def test_a_prompt_ends_where_the_last_answer_that_is_learnt_begins(base: Path) -> None:
    speaker = speaker_of(base)
    messages = json.loads(label("Are you open?", "Until six.", "Today too?", "Yes.", system="Be brief."))
    text = speaker.tokenizer.decode(speaker.prompt(messages))
    assert text.endswith("Today too?<|im_end|>\n<|im_start|>assistant\n") and "Until six." in text
    assert speaker.prompt(messages) == speaker.template.question(messages[:-1])


def test_pieces_of_a_stream_are_the_answer_and_end_when_nobody_takes_them(base: Path) -> None:
    speaker, prompts = speaker_of(base), []
    for text in conversations(3, 1)["label"]:
        prompts.append(speaker.prompt(json.loads(text)))
    for prompt, whole in zip(prompts, speaker.answers(prompts, 16), strict=True):
        stream = speaker.stream(prompt, 16, Sampling(1e-38))  # as cold as if there were none
        assert "".join(stream) == whole["answer"] and stream.finish == whole["finish"]
        assert stream.new_tokens == whole["new_tokens"] + (whole["finish"] == "stop")
    stop = speaker.answers(prompts[:1], 16)[0]["answer"][-3:]  # it stops there, as there were no more tokens anyway
    stream = speaker.stream(prompts[0], 16, Sampling(), [stop])
    assert not "".join(stream).endswith(stop) and stream.finish == "stop"
    first, second, over = *(speaker.stream(prompts[0], 200, Sampling()) for _ in range(2)), Event()
    speaker.worker.submit(over.wait)  # another answer
    assert next(iter(first)) == ""
    first.stop()
    over.set()
    pieces = iter(second)
    while not next(pieces):
        pass
    second.stop()
    assert len([*pieces]) < 100 and second.new_tokens < 200 and not first.new_tokens
    drawn = ["".join(speaker.stream(prompts[0], 16, Sampling(1.5, 0.9, seed))) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_template_that_was_changed_after_the_training_is_refused(base: Path, tmp_path: Path) -> None:
    folder = chatting(make_language_model(tmp_path / "other"))
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("assistant", "bot"))
    with pytest.raises(ValueError, match="template of the tokenizer is not the one"):
        speaker_of(folder)


def test_scores_are_those_of_sacrebleu_and_rouge_score() -> None:
    references, answers = random_answers(40, 1), random_answers(40, 2)
    answers[:6] = references[:6]
    said = [{"answer": text, "finish": "stop", "kind": "text"} for text in answers]
    sums = answer_scores.statistics(references, said).sum(axis=0)
    scores = answer_scores.scores(sums)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score / 100, abs=1e-9)
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score / 100, abs=1e-9)
    rouge = RougeScorer(["rougeL"])
    theirs = [rouge.score(one, other)["rougeL"].fmeasure for one, other in zip(references, answers, strict=True)]
    assert scores["rouge_l"] == pytest.approx(np.mean(theirs), abs=1e-9)
    few = answer_scores.scores(answer_scores.statistics(references[:2], said[6:8]).sum(axis=0))  # orders without match
    assert few["bleu"] == pytest.approx(sacrebleu.corpus_bleu(answers[6:8], [references[:2]]).score / 100, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "reference", "right", "wrong", "invalid"),
    [
        ("choice", "Refund", " refund. ", "other", "maybe"),
        ("json", '{"a": 1, "b": [2]}', '```json\n{"b": [2], "a": 1}\n```', '{"a": 2}', "{"),
        ("json", "[1, 1.5]", "```\r\n[1.0, 1.5]\r\n```", "[1, 2]", "[NaN]"),
        ("number", "so it is 1,200", "1200.0", "1", "none"),
        ("number", "−5", "it is -5.0", "5", "none"),
        ("number", ".5", "5e-1", "between 5-10", "ten"),
        ("number", "10", "5-10", "-10", "ten"),
        ("text", "Until  six.", "until six", "until seven", " "),
        ("text", "...", " ... ", "!", ""),
        ("choice", "👍", "👍 ", "other", ""),
    ],
)
def test_answers_of_every_kind_are_compared_by_what_they_say(
    kind: str, reference: str, right: str, wrong: str, invalid: str
) -> None:
    said = [{"answer": text, "finish": "stop", "kind": kind} for text in (right, wrong, invalid)]
    rows = answer_scores.statistics([reference, "other", "other"], said)
    names = ["rows", "rouge_l", *answer_scores.RATES]
    exact, valid = (rows[:, names.index(name)].tolist() for name in ("exact_match", "valid"))
    assert exact == [1, kind in ("choice",), 0] and valid == [1, 1, 0]


def test_unfinished_empty_and_repetitive_answers_are_counted_and_rows_that_nobody_asked_are_not() -> None:
    loop = "we repair tyres while you wait and " * 6
    said: list[dict[str, Any]] = [
        {"answer": loop, "finish": "length", "kind": "text"},
        {"answer": " ", "finish": "stop", "kind": "text"},
        {"answer": "until six", "finish": "stop", "kind": "text"},
        {},
    ]
    scores = answer_scores.scores(answer_scores.statistics(["until six"] * 4, said).sum(axis=0))
    thirds = {name: round(float(scores[name]) * 3) for name in answer_scores.RATES}
    assert thirds == {"exact_match": 1, "valid": 2, "unfinished": 1, "empty": 1, "repetitive": 1}


@pytest.mark.parametrize("part", ["👍", "- ", "ha", "!", "on and on "])
def test_what_says_the_same_again_and_again_repeats_itself_and_a_text_of_marks_alone_is_like_itself(part: str) -> None:
    text = part * 50
    assert answer_scores.repeats(text) and not answer_scores.repeats(text[:12])
    said = [{"answer": text, "finish": "stop", "kind": "text"}]
    assert answer_scores.scores(answer_scores.statistics([text], said)[0])["rouge_l"] == 1


def test_an_answer_ends_where_the_models_context_does(base: Path) -> None:
    speaker = speaker_of(base)
    prompts = [speaker.template.question(json.loads(label("open " * count))) for count in (1, 90)]
    room = speaker.context - len(prompts[1])
    assert 0 < room < 200
    short, cut = speaker.answers(prompts, 200)
    assert [short] == speaker.answers(prompts[:1], 200) and cut["new_tokens"] <= room
    with pytest.raises(Refused, match="more than"):
        speaker.question(json.loads(label("open " * 90)), room + 1)
    assert speaker.question(json.loads(label("open " * 90)), room) == prompts[1]


def test_questions_without_a_word_have_nearest_answers_too() -> None:
    rows = pl.DataFrame({"id": ["a", "b"], "label": [label("👍", "good"), label("😢", "bad")]})
    decision = AnswerDecision(task=TASK.name, rows=2)
    said = generation.nearest_answers(rows, rows, decision)
    assert [json.loads(text)["answer"] for text in said] == ["good", "bad"]


def test_losses_of_other_tokens_are_not_compared() -> None:
    first, second = (pl.DataFrame(TASK.decide(np.array([[9.0, tokens, 2, 20]]), None)) for tokens in (4, 5))
    assert TASK.comparable(first, second, "nll") and not TASK.comparable(first, second, "bits_per_byte")
    assert TASK.comparable(first, first, "nll") is None


def test_the_rows_that_are_asked_are_drawn_by_their_ids_and_their_baselines_say_something(base: Path) -> None:
    rows, decision = conversations(20, 4), AnswerDecision(task=TASK.name, rows=6, max_new_tokens=8)
    chosen = generation.asked(rows, 6)
    assert chosen.sum() == 6 and (generation.asked(rows.reverse(), 6)[::-1] == chosen).all()
    outputs = np.array([[9.0, 4, 2, 20]] * 20)
    predictions = TASK.spoken(base, rows, pl.DataFrame(TASK.decide(outputs, decision)), decision)
    assert ["answer" in json.loads(text) for text in predictions["prediction"]] == chosen.tolist()
    answered = rows.with_columns(prediction=predictions["prediction"])
    parts = (conversations(30, 9), rows, answered)
    theirs = {name: TASK.baseline(name, parts, base, base, decision) for name in ("few_shot", "nearest_answer")}
    for name, said in theirs.items():
        assert said and ["answer" in json.loads(text) for text in said] == chosen.tolist(), name
        scores = TASK.evidence(answered, pl.DataFrame({"prediction": said})).scores(np.ones((1, answer_scores.WIDTH)))
        assert "rouge_l" in scores and "nll" not in scores
    table = TASK.side_by_side(answered, {"few_shot": pl.Series(theirs["few_shot"])})["conversations"]
    assert table.columns == ["id", "asked", "before", "reference", "this model", "few_shot"] and table.height == 6
    whole = TASK.evidence(answered, answered).scores(np.ones((1, 4 + answer_scores.WIDTH)))
    assert {"nll", "bits_per_byte", "rouge_l", "unfinished"} <= whole.keys()
    nearest = [
        json.loads(text)["answer"] for text, ask in zip(theirs["nearest_answer"] or (), chosen, strict=True) if ask
    ]
    wanted = [reference(text) for text, ask in zip(rows["label"], chosen, strict=True) if ask]
    assert sum(one == other for one, other in zip(nearest, wanted, strict=True)) >= 4  # each question has one answer


def test_settings_of_generation_travel_with_the_decision(tmp_path: Path) -> None:
    params = EvaluateParams(generation={"rows": 7, "max_new_tokens": 9}, answer="json")  # type: ignore[arg-type]
    decision, _ = TASK.fit_decision(params, [], np.zeros((0, 4)), None)
    decision.write(tmp_path)
    from stages.tasks import read_decision

    assert read_decision(tmp_path) == decision and (decision.rows, decision.max_new_tokens) == (7, 9)


def test_plain_texts_have_the_loss_that_transformers_gives_them(base: Path) -> None:
    texts = ["until six, while you wait", "who are you" * 40]
    tokens, network = ChatTokens(base), load(base)
    found = of_texts(network, tokens, texts)
    ids = torch.tensor([tokens.template.tokenizer(texts[0], add_special_tokens=False)["input_ids"]])
    loss = network.model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    assert found[0, 0] == pytest.approx(loss, rel=1e-5) and found[:, 1].tolist() == [len(text) for text in texts]
    one, other = TASK.text_numbers(pl.DataFrame({"text": texts}), base, base) or (0, 1)
    assert np.array_equal(one, other) and TASK.text_numbers(pl.DataFrame({"text": []}), base, base) is None


def test_conversations_that_wait_are_answered_in_requests_and_predictions_and_others_measured(
    base: Path, tmp_path: Path
) -> None:
    AnswerDecision(task=TASK.name, max_new_tokens=9).write(tmp_path / "serving")
    (tmp_path / "serving" / TEXT_CLEANING).write_text(TextCleaning().as_text())
    (tmp_path / "model").symlink_to(base)
    waits, answered = label("are you open b", "until six", "who are you"), label("are you open b", "until six")
    predictor = Predictor(Package.within(tmp_path), task=TASK.name)
    asked, measured = answers(predictor, Question([waits, answered]))
    (expected,) = speaker_of(base).answers([speaker_of(base).template.question(json.loads(waits))], 9)
    assert {name: asked[name] for name in expected} == expected
    assert asked["loss"] is asked["perplexity"] is None and asked["tokens"] == 0
    assert measured["answer"] is measured["finish"] is None and measured["loss"] > 0
    assert asked.keys() == measured.keys() == TASK.signature.keys()
    source = tmp_path / "asked.jsonl"
    source.write_text("\n".join(json.dumps({"messages": text}) for text in (waits, answered) * 2))
    written = []
    for size in (None, 1):
        request = Request(str(source), tmp_path / f"{size}.csv", str(tmp_path), text="messages", batch_rows=size)
        assert predict(request)["rows"] == 4
        written.append(request.output.read_bytes())
    table = pl.read_csv(written[0])
    assert table["answer"].to_list() == [expected["answer"], None] * 2 and written[0] == written[1]
    for wrong, message in ((label("open " * 300), "more than"), (label("<|im_end|>"), "a mark"), ("{}", "no list")):
        with pytest.raises(Refused, match=f"conversation 2 of 2: .*{message}"):
            answers(predictor, Question([waits, wrong]))
        source.write_text("\n".join(json.dumps({"id": id, "messages": wrong}) for id in ("one",)))
        with pytest.raises(AttuneError, match=f"the row one cannot be read: .*{message}"):
            predict(Request(str(source), tmp_path / "out.csv", str(tmp_path), text="messages", id="id"))
    source.write_text(json.dumps({"messages": ""}))
    report = predict(Request(str(source), tmp_path / "out.csv", str(tmp_path), text="messages"))
    assert report["rows_without_text"] == 1
