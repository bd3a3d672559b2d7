"""Attributions: words that add up to the text and to what they explain, for any architecture with embeddings."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GPT2Config, PreTrainedTokenizerFast, RobertaConfig
from transformers import GPT2ForSequenceClassification as Gpt2
from transformers import RobertaForSequenceClassification as Roberta

from stages.common.params.evaluate import Attributions
from stages.evaluate.predicted import explained
from stages.finetune.strategies import prepare, save
from stages.tasks.attribution import Unexplainable, attributions, in_words
from stages.tasks.loading import load_classifier
from stages.tasks.text_classification import build_model, probabilities
from tests.models import LABELS, put_tokenizer, settings
from tests.unit.small_records import judged_rows

NAMES = list(LABELS)
LONGEST = 24
TEXT = "The film was a warm, moving story."

pytestmark = pytest.mark.usefixtures("one_thread")


def byte_level(special: list[str], **named: str) -> PreTrainedTokenizerFast:
    """A tokenizer of pieces of bytes, as RoBERTa and GPT-2 have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    if "sep_token" in named:
        sep, cls = ((named[name], special.index(named[name])) for name in ("sep_token", "cls_token"))
        tokenizer.post_processor = processors.RobertaProcessing(sep, cls, trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, **named)


def bert(base: Path, folder: Path, **knobs: object) -> Path:
    """A tiny BERT with answers that differ, and an adapter where knobs ask for one."""
    model = build_model(base, NAMES, None, seed=3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    params = settings(**{"strategy": "full", **knobs})
    model = prepare(model, params, LONGEST)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and ("lora" in name or "prompt" in name):
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)) * 0.3)
    save(model, params, folder / "model")
    return put_tokenizer(base, folder / "model", LONGEST)


def roberta(folder: Path) -> Path:
    """Its positions are counted from the ids that are no padding."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    names = dict(enumerate(NAMES))
    config = RobertaConfig(vocab_size=310, max_position_embeddings=40, pad_token_id=1, id2label=names, **shape)
    config.initializer_range = 0.3
    Roberta(config).save_pretrained(folder)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    named = {"pad_token": "<pad>", "mask_token": "<mask>", "sep_token": "</s>", "cls_token": "<s>"}
    byte_level(special, **named).save_pretrained(folder)
    return folder


def gpt2(folder: Path) -> Path:
    """It answers at the last token that is no padding, and has no mask."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=310, n_positions=40, n_embd=16, n_layer=1, n_head=2, id2label=dict(enumerate(NAMES)))
    config.pad_token_id, config.initializer_range = 0, 0.3
    Gpt2(config).save_pretrained(folder)
    byte_level(["<|end|>"], pad_token="<|end|>", eos_token="<|end|>").save_pretrained(folder)
    return folder


MAKERS: dict[str, Any] = {  # or the knobs of a BERT
    "bert": {},
    "lora": {"strategy": "lora", "merge_adapter": False},
    "prefix": {"strategy": "prefix", "prefix": {"num_virtual_tokens": 4}, "merge_adapter": False},
    "roberta": roberta,
    "gpt2": gpt2,
}


@pytest.fixture(scope="module")
def model(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a model, made once."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            folder, maker = tmp_path_factory.mktemp(name), MAKERS[name]
            made[name] = bert(base, folder, **maker) if isinstance(maker, dict) else maker(folder)
        return made[name]

    return of


@pytest.mark.parametrize("name", list(MAKERS))
def test_pieces_are_the_text_and_the_integral_is_exact(model: Callable[[str], Path], name: str) -> None:
    texts = [TEXT, "Don’t!", "a", "  warm\n\nstory  ", "naïve 😀 film", "这部 film", "the film " * 30]
    for one, text in zip(attributions(model(name), judged_rows(texts), NAMES, 64), texts, strict=True):
        read = "".join(piece for piece, _ in one.pieces)
        assert read == text or (one.truncated and text.startswith(read) and len(read) < len(text))
        assert one.truncated == (text == texts[-1])
        assert abs(one.delta) < 0.01
        assert sum(abs(share) for _, share in one.pieces) == pytest.approx(1, abs=0.01)
        assert all(share == 0 for piece, share in one.pieces if piece.isspace())


def test_the_word_that_the_answer_hangs_on_has_the_largest_share(base: Path, tmp_path: Path) -> None:
    """A model that reads one word alone: its embedding is far from all others, which are the same."""
    folder = bert(base, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = load_classifier(folder)
    with torch.no_grad():
        table = network.get_input_embeddings().weight
        table[:] = table[0]
        # in half of the dimensions: a shift of all of them is what LayerNorm takes out again
        table[tokenizer.convert_tokens_to_ids("moving"), ::2] += 1.0
    network.save_pretrained(folder)
    (one,) = attributions(folder, judged_rows([TEXT]), NAMES, 64)
    assert {piece for piece, share in one.pieces if share} == {"moving"}
    rest = probabilities(folder, judged_rows([TEXT.replace("moving", "film"), TEXT]), 2)[:, NAMES.index("good")]
    assert dict(one.pieces)["moving"] == (1 if rest[1] > rest[0] else -1)


def test_both_texts_of_a_pair_are_explained(model: Callable[[str], Path]) -> None:
    rows = judged_rows(["the film", "the film"], ["a warm story", None])
    both, alone = attributions(model("bert"), rows, NAMES, 16)
    assert "".join(piece for piece, _ in both.pieces) == "the film\na warm story"
    assert "".join(piece for piece, _ in alone.pieces) == "the film\n"
    assert dict(both.pieces)["story"] != 0


def test_the_same_rows_give_the_same_numbers_alone_and_together(model: Callable[[str], Path]) -> None:
    texts = [TEXT, "the dull film", "a story"]
    together = attributions(model("bert"), judged_rows(texts), NAMES, 16)
    assert together == attributions(model("bert"), judged_rows(texts), NAMES, 16)
    for at, one in enumerate(together):
        assert attributions(model("bert"), judged_rows(texts)[at : at + 1], NAMES, 16) == [one]


def test_a_model_without_embeddings_is_told_not_guessed(
    model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: object) -> None:
        raise NotImplementedError

    folder = model("roberta")
    monkeypatch.setattr(Roberta, "get_input_embeddings", missing)
    with pytest.raises(Unexplainable, match="RobertaForSequenceClassification has no embeddings"):
        attributions(folder, judged_rows([TEXT]), NAMES, 8)
    rows = judged_rows([TEXT]).drop("kind")
    found, told = explained(folder, rows, NAMES, Attributions(steps=4), seed=1)
    assert found == []
    assert "no prediction is explained" in told


# ── which rows ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_surest_errors_and_a_sample_of_the_rest_are_explained(model: Callable[[str], Path]) -> None:
    rows = judged_rows(["the film"] * 30).with_columns(
        confidence=pl.Series([0.5 + at / 100 for at in range(30)]), prediction=pl.Series(["bad"] * 10 + ["good"] * 20)
    )

    def chosen(rows: pl.DataFrame, seed: int = 1, errors: int = 3) -> list[tuple[str, str]]:
        params = Attributions(errors=errors, sample=5, steps=4)
        found, told = explained(model("bert"), rows.drop("kind"), NAMES, params, seed)
        assert f"{len(found)} predictions explained" in told
        return [(one.kind, one.id) for one in found]

    first = chosen(rows)
    assert first[:3] == [("error", "row9"), ("error", "row8"), ("error", "row7")]
    assert [kind for kind, _ in first[3:]] == ["sample"] * 5
    assert len(set(first)) == 8
    assert chosen(rows.reverse()) == first
    assert chosen(rows, seed=2)[3:] != first[3:]
    assert [kind for kind, _ in chosen(rows, errors=20)] == ["error"] * 10 + ["sample"] * 5


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=30), st.data())
def test_pieces_of_any_text_and_tokens_are_the_text_and_keep_the_sum(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    tokens = [(start, end, float(at + 1)) for at, (start, end) in enumerate(pairwise(cuts))]
    pieces = in_words(text, tokens)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(piece for piece, _ in pieces)
    shown = any(text[start:end].strip() for start, end, _ in tokens)
    assert sum(value for _, value in pieces) == (sum(value for *_, value in tokens) if shown else 0)


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("It's un|believ|able", "", [("It's", 1), (" ", 0), ("unbelievable", 9)]),
        ("好看| film", "", [("好看", 1), (" ", 0), ("film", 2)]),
        ("好|看", "", [("好", 1), ("看", 2)]),
        ("wow|!|!", "", [("wow", 1), ("!", 2), ("!", 3)]),
        ("a| |b", "", [("a", 1), (" ", 0), ("b", 5)]),
        ("क्या| है", "", [("क्या", 1), (" ", 0), ("है", 2)]),
        ("well|-|made", "", [("well", 1), ("-", 2), ("made", 3)]),
    ],
)
def test_words_of_several_scripts(text: str, tokens: str, expected: list[tuple[str, float]]) -> None:
    """Tokens are parted by `|`; the first has 1, the second 2 …"""
    parts, at, given_tokens = text.split("|"), 0, []
    for number, part in enumerate(parts):
        given_tokens.append((at, at + len(part), float(number + 1)))
        at += len(part)
    if text.startswith("It's"):
        given_tokens = [(0, 4, 1.0), (5, 7, 2.0), (7, 13, 3.0), (13, 17, 4.0)]
    assert in_words("".join(parts), given_tokens) == expected
