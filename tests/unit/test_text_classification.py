"""The task's model: built from a base, and asked for probabilities."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from stages.common.params.tasks import task_spec
from stages.tasks.bootstrap import scores_of
from stages.tasks.encoder import embeddings
from stages.tasks.inference import labels_of, size_of
from stages.tasks.text_classification import TASK
from tests.models import FILLER, TELLING, build_model, put_tokenizer, tiny_config
from tests.unit.small_decisions import probabilities
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


def test_the_encoder_keeps_the_weights_of_the_base_and_the_seed_makes_the_head(base: Path, finetuned: Path) -> None:
    stored = load_file(base / "model.safetensors")
    first, again, other, had_a_head = (
        build_model(folder, LABELS, None, seed) for folder, seed in ((base, 5), (base, 5), (base, 6), (finetuned, 5))
    )
    encoder = first.base_model.state_dict()
    assert set(encoder) == set(stored)
    assert all(torch.equal(encoder[name], stored[name]) for name in stored)
    head = first.classifier.weight
    assert torch.equal(head, again.classifier.weight)
    assert torch.equal(head, had_a_head.classifier.weight)
    assert not torch.equal(head, other.classifier.weight)
    assert (head.shape, head.dtype) == ((3, 16), torch.float32)


def test_the_base_may_have_had_other_labels_and_another_task(base: Path, tmp_path: Path) -> None:
    model = build_model(base, LABELS, None, seed=0)
    model.config.problem_type = "multi_label_classification"
    model.save_pretrained(tmp_path)
    again = build_model(tmp_path, ["no", "yes"], None, seed=5)
    assert again.classifier.out_features == 2
    assert again.config.id2label == {0: "no", 1: "yes"}
    assert again.config.problem_type == "single_label_classification"


def test_labels_come_back_in_the_order_of_the_outputs(base: Path, tmp_path: Path) -> None:
    many = [f"label {number}" for number in range(12)]  # "10" sorts before "2" as text
    build_model(base, many, None, seed=0).save_pretrained(tmp_path)
    assert labels_of(tmp_path) == many


texts = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=LONGEST * 2).map(" ".join), min_size=1, max_size=9
)


@settings(max_examples=15, deadline=None)
@given(texts, st.integers(1, 10))
def test_probabilities_are_in_the_rows_order_whatever_lengths_and_batch_size(
    finetuned: Path, sample: list[str], batch_size: int
) -> None:
    batched = probabilities(finetuned, text_rows(sample), batch_size)
    tokenizer = AutoTokenizer.from_pretrained(finetuned)
    network = AutoModelForSequenceClassification.from_pretrained(finetuned).eval()
    with torch.inference_mode():
        one_by_one = [
            network(**tokenizer(text, truncation=True, max_length=LONGEST, return_tensors="pt")).logits.softmax(-1)
            for text in sample
        ]
    assert (batched.shape, batched.dtype) == ((len(sample), len(LABELS)), np.float64)
    np.testing.assert_allclose(batched, torch.cat(one_by_one).numpy(), atol=1e-5)
    np.testing.assert_allclose(batched.sum(axis=1), 1.0, atol=1e-12)


def test_the_second_text_of_a_pair_counts(finetuned: Path) -> None:
    rows = text_rows(["warm"] * 3, ["dull", "story", None])
    assert len({tuple(row.round(6)) for row in probabilities(finetuned, rows, 2)}) == 3


@settings(max_examples=4, deadline=None)
@given(texts, st.integers(1, 10))
def test_embeddings_do_not_depend_on_padding(base: Path, sample: list[str], batch_size: int) -> None:
    together = embeddings(base, text_rows(sample), batch_size, LONGEST)
    alone = np.concatenate([embeddings(base, text_rows([text]), 1, LONGEST) for text in sample])
    np.testing.assert_allclose(together, alone, atol=0.05)  # bfloat16 has three digits


def test_the_facts_name_every_score_of_the_task() -> None:
    rows = pl.DataFrame({"label": ["a", "b"], "prediction": ["a", "b"]})
    assert set(scores_of(TASK.evidence(rows, rows))) == {score.name for score in task_spec(TASK.name).scores}


@pytest.mark.parametrize("kind", ["bert", "gpt2", "modernbert", "distilbert", "albert"])
def test_dropout_is_the_bases_own_unless_set_whatever_a_model_calls_it(kind: str, tmp_path: Path) -> None:
    AutoModel.from_config(tiny_config(kind)).save_pretrained(tmp_path)
    own, none, some = (build_model(tmp_path, LABELS, rate, seed=0).modules() for rate in (None, 0.0, 0.3))
    rates = [{part.p for part in parts if isinstance(part, torch.nn.Dropout)} for parts in (own, none, some)]
    assert rates[1:] == [{0.0}, {0.3}] and (rates[0] == {0.1} or kind != "bert")


def test_parameters_and_bytes_are_those_of_the_weights_and_of_an_adapter_beside_them(tmp_path: Path) -> None:
    save_file({"one": torch.zeros(3, 4), "two": torch.zeros(5, dtype=torch.half)}, tmp_path / "model.safetensors")
    save_file({"down": torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "tokenizer.json").write_text("{}")
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert size_of(tmp_path) == {"parameters": 3 * 4 + 5 + 2 * 2, "bytes": size}
