"""Attributions: words that add up to the text and to what they explain, for any architecture with embeddings."""

from itertools import accumulate, pairwise
from pathlib import Path
from unittest.mock import Mock

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, GPT2Config, PreTrainedTokenizerFast
from transformers import GPT2ForSequenceClassification as Gpt2

from stages.common.errors import AttuneError
from stages.common.params.evaluate import Attributions
from stages.finetune.strategies import prepare, save
from stages.tasks.attribution import attributions, explain, in_words
from stages.tasks.inference import load_classifier
from stages.tasks.text_classification import TASK
from tests.models import LABELS, build_model, put_tokenizer, settings
from tests.unit.small_decisions import probabilities
from tests.unit.small_records import judged_rows

NAMES = list(LABELS)
LONGEST = 24
TEXT = "The film was a warm, moving story."


def bert(base: Path, folder: Path, **knobs: object) -> Path:
    """A tiny BERT with answers that differ, and an adapter where knobs ask for one."""
    params = settings(**{"strategy": "full", **knobs})
    model = prepare(build_model(base, NAMES, None, seed=3), params, LONGEST)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    save(model, params, folder / "model")
    return put_tokenizer(base, folder / "model", LONGEST)


def gpt2(folder: Path) -> Path:
    """It answers at the last token that is no padding, and has pieces of bytes but no mask."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=310, n_positions=40, n_embd=16, n_layer=1, n_head=2, id2label=dict(enumerate(NAMES)))
    config.pad_token_id, config.initializer_range = 0, 0.3
    Gpt2(config).save_pretrained(folder)
    pieces = ByteLevelBPETokenizer(trim_offsets=True)
    pieces.train_from_iterator([TEXT] * 3, 300, special_tokens=["<|end|>"], show_progress=False)
    names = {"pad_token": "<|end|>", "eos_token": "<|end|>", "model_max_length": LONGEST}
    PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, **names).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of models by name."""
    home = tmp_path_factory.mktemp("models")
    prefix = {"strategy": "prefix", "prefix": {"num_virtual_tokens": 4}, "merge_adapter": False}
    return {
        "bert": bert(base, home / "bert"),
        "lora": bert(base, home / "lora", strategy="lora", merge_adapter=False),
        "prefix": bert(base, home / "prefix", **prefix),
        "gpt2": gpt2(home / "gpt2"),
    }


@pytest.mark.parametrize("name", ["bert", "lora", "prefix", "gpt2"])
def test_pieces_are_the_text_and_the_integral_is_exact(models: dict[str, Path], name: str) -> None:
    texts = [TEXT, "Don’t!", "a", "  warm\n\nstory  ", "naïve 😀 film", "这部 film", "the film " * 30]
    for row, text in zip(attributions(models[name], judged_rows(texts), TASK, 64), texts, strict=True):
        read = "".join(piece for piece, _ in row.pieces)
        assert read == text or (row.truncated and text.startswith(read) and len(read) < len(text))
        assert row.truncated == (text == texts[-1])
        assert abs(row.delta) < 0.01
        assert sum(abs(share) for _, share in row.pieces) == pytest.approx(1, abs=0.01)
        assert all(share == 0 for piece, share in row.pieces if piece.isspace())


def test_the_word_that_the_answer_hangs_on_has_the_largest_share(base: Path, tmp_path: Path) -> None:
    """A model that reads one word alone: its embedding is far from all others, which are the same."""
    folder = bert(base, tmp_path)
    tokenizer, network = AutoTokenizer.from_pretrained(folder), load_classifier(folder)
    with torch.no_grad():
        table = network.get_input_embeddings().weight
        table[:] = table[0]
        # in half of the dimensions: a shift of all of them is what LayerNorm takes out again
        table[tokenizer.convert_tokens_to_ids("moving"), ::2] += 1.0
    network.save_pretrained(folder)
    (row,) = attributions(folder, judged_rows([TEXT]), TASK, 64)
    assert {piece for piece, share in row.pieces if share} == {"moving"}
    rest = probabilities(folder, judged_rows([TEXT.replace("moving", "film"), TEXT]), 2)[:, NAMES.index("good")]
    assert dict(row.pieces)["moving"] == (1 if rest[1] > rest[0] else -1)


def test_both_texts_of_a_pair_are_explained_and_rows_do_not_depend_on_each_other(
    models: dict[str, Path],
) -> None:
    rows = judged_rows(["the film", "the film"], ["a warm story", None])
    together = attributions(models["bert"], rows, TASK, 16)
    assert together[0] == attributions(models["bert"], rows[:1], TASK, 16)[0]
    assert ["".join(piece for piece, _ in row.pieces) for row in together] == ["the film\na warm story", "the film\n"]
    assert dict(together[0].pieces)["story"] != 0


def test_a_model_without_embeddings_is_reported_and_not_guessed(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models["gpt2"]
    monkeypatch.setattr(Gpt2, "get_input_embeddings", Mock(side_effect=NotImplementedError))
    with pytest.raises(AttuneError, match="GPT2ForSequenceClassification has no embeddings"):
        attributions(folder, judged_rows([TEXT]), TASK, 8)
    explained, message = explain(folder, judged_rows([TEXT]).drop("kind"), TASK, Attributions(steps=4), seed=1)
    assert explained == []
    assert "no prediction is explained" in message


def test_the_errors_whose_label_fits_least_and_a_sample_of_the_rest_are_explained(models: dict[str, Path]) -> None:
    quality = pl.Series([0.5 - number / 100 for number in range(30)])
    rows = judged_rows(["the film"] * 30).drop("kind")
    rows = rows.with_columns(label_quality=quality, prediction=pl.Series(["bad"] * 10 + ["good"] * 20))

    def chosen(rows: pl.DataFrame, seed: int = 1, errors: int = 3) -> list[tuple[str, str]]:
        params = Attributions(errors=errors, sample=5, steps=4)
        explained, message = explain(models["bert"], rows, TASK, params, seed)
        assert f"{len(explained)} predictions explained" in message
        return [(row.kind, row.id) for row in explained]

    first = chosen(rows)
    assert first[:3] == [("error", "row9"), ("error", "row8"), ("error", "row7")]
    assert [kind for kind, _ in first[3:]] == ["sample"] * 5 and len(set(first)) == 8
    assert chosen(rows.reverse()) == first
    assert chosen(rows, seed=2)[3:] != first[3:]
    assert [kind for kind, _ in chosen(rows, errors=20)] == ["error"] * 10 + ["sample"] * 5


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=30), st.data())
def test_pieces_of_any_text_and_tokens_are_the_text_and_keep_the_sum(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    tokens = [(start, end, float(number)) for number, (start, end) in enumerate(pairwise(cuts), start=1)]
    pieces = in_words(text, tokens)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(piece for piece, _ in pieces)
    visible = any(text[start:end].strip() for start, end, _ in tokens)
    assert sum(value for _, value in pieces) == (sum(value for *_, value in tokens) if visible else 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's| un|believ|able", [("It's", 1), (" ", 0), ("unbelievable", 9)]),
        ("好看| film", [("好看", 1), (" ", 0), ("film", 2)]),
        ("好|看", [("好", 1), ("看", 2)]),
        ("wow|!|!", [("wow", 1), ("!", 2), ("!", 3)]),
        ("a| |b", [("a", 1), (" ", 0), ("b", 5)]),
        ("क्या| है", [("क्या", 1), (" ", 0), ("है", 2)]),
        ("well|-|made", [("well", 1), ("-", 2), ("made", 3)]),
    ],
)
def test_words_of_several_scripts(text: str, expected: list[tuple[str, float]]) -> None:
    """Tokens are separated by `|`; the first has 1, the second 2 …"""
    parts = text.split("|")
    ends = accumulate(map(len, parts))
    spans = ((end - len(part), end) for part, end in zip(parts, ends, strict=True))
    assert in_words("".join(parts), [(*span, float(value)) for value, span in enumerate(spans, start=1)]) == expected
