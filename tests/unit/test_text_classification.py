"""The task's model: built from a base, and asked for probabilities."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from stages.tasks.text_classification import build_model, embeddings, labels_of, probabilities, scores
from tests.models import FILLER, TELLING, put_tokenizer
from tests.unit.small_records import text_rows

WORDS = [*FILLER, *(word for words in TELLING.values() for word in words)]
LABELS = ["negative", "neutral", "positive"]
LONGEST = 24


@pytest.fixture(scope="module")
def finetuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a head whose answers differ from text to text."""
    folder = tmp_path_factory.mktemp("finetuned")
    model = build_model(base, LABELS, None, seed=3)
    with torch.no_grad():
        model.classifier.weight.mul_(3000)
    model.save_pretrained(folder)
    return put_tokenizer(base, folder, LONGEST)


def test_the_encoder_keeps_the_weights_of_the_base(base: Path) -> None:
    built = build_model(base, LABELS, None, seed=0).base_model.state_dict()
    stored = load_file(base / "model.safetensors")
    assert set(built) == set(stored)
    assert all(torch.equal(built[name], stored[name]) for name in stored)


def test_the_seed_makes_the_head(base: Path) -> None:
    first, again, other = (build_model(base, LABELS, None, seed=seed).classifier.weight for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (3, 16)
    assert first.dtype == torch.float32


def test_the_head_is_new_even_if_the_base_had_one(base: Path, finetuned: Path) -> None:
    fresh = build_model(base, LABELS, None, seed=5).classifier.weight
    assert torch.equal(build_model(finetuned, LABELS, None, seed=5).classifier.weight, fresh)


def test_the_base_may_have_had_another_number_of_labels(finetuned: Path) -> None:
    model = build_model(finetuned, ["no", "yes"], None, seed=5)
    assert model.classifier.out_features == 2
    assert model.config.id2label == {0: "no", 1: "yes"}
    stored = load_file(finetuned / "model.safetensors")
    kept = model.state_dict()
    assert all(torch.equal(kept[name], stored[name]) for name in stored if not name.startswith("classifier"))


def test_one_label_of_several_is_learned_whatever_the_base_was_made_for(base: Path, tmp_path: Path) -> None:
    model = build_model(base, LABELS, None, seed=0)
    model.config.problem_type = "multi_label_classification"
    model.save_pretrained(tmp_path)
    assert build_model(tmp_path, LABELS, None, seed=0).config.problem_type == "single_label_classification"


@pytest.mark.parametrize(("setting", "expected"), [(None, 0.1), (0.0, 0.0), (0.3, 0.3)])
def test_dropout_is_the_bases_own_unless_set(base: Path, setting: float | None, expected: float) -> None:
    model = build_model(base, LABELS, setting, seed=0)
    rates = {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {expected}
    assert model.config.attention_probs_dropout_prob == expected


def test_labels_come_back_in_the_order_of_the_outputs(base: Path, tmp_path: Path) -> None:
    many = [f"label {at}" for at in range(12)]  # "10" sorts before "2" as text
    build_model(base, many, None, seed=0).save_pretrained(tmp_path)
    assert labels_of(tmp_path) == many


texts = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=LONGEST * 2).map(" ".join), min_size=1, max_size=9
)


@settings(max_examples=15, deadline=None)
@given(texts, st.integers(1, 10))
def test_probabilities_are_in_the_rows_order_whatever_lengths_and_batch_size(
    finetuned: Path, some: list[str], batch_size: int
) -> None:
    found = probabilities(finetuned, text_rows(some), batch_size)
    tokenizer = AutoTokenizer.from_pretrained(finetuned)
    network = AutoModelForSequenceClassification.from_pretrained(finetuned).eval()
    with torch.inference_mode():
        one_by_one = [
            network(**tokenizer(text, truncation=True, max_length=LONGEST, return_tensors="pt")).logits.softmax(-1)
            for text in some
        ]
    assert found.shape == (len(some), len(LABELS))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, torch.cat(one_by_one).numpy(), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)


def test_the_second_text_of_a_pair_counts(finetuned: Path) -> None:
    found = probabilities(finetuned, text_rows(["warm"] * 3, ["dull", "story", None]), 2)
    assert len({tuple(row.round(6)) for row in found}) == 3


@settings(max_examples=10, deadline=None)
@given(texts, st.integers(1, 10))
def test_embeddings_do_not_depend_on_padding(base: Path, some: list[str], batch_size: int) -> None:
    together = embeddings(base, text_rows(some), batch_size, LONGEST)
    alone = np.concatenate([embeddings(base, text_rows([text]), 1, LONGEST) for text in some])
    np.testing.assert_allclose(together, alone, atol=0.05)  # bfloat16 has three digits


def test_gates_may_name_every_score_of_the_task() -> None:
    from typing import get_args

    from stages.common.params.register import Metric

    assert set(scores(np.array([0, 1]), np.array([0, 1]), 2)) == set(get_args(Metric))


@pytest.mark.parametrize("kind", ["gpt2", "modernbert", "distilbert", "albert"])
def test_dropout_is_replaced_whatever_a_model_calls_it(kind: str, tmp_path: Path) -> None:
    shape = {"vocab_size": 200, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
    AutoModel.from_config(AutoConfig.for_model(kind, **shape)).save_pretrained(tmp_path)
    model = build_model(tmp_path, LABELS, 0.3, seed=0)
    rates = {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {0.3}
