"""A masked language model replaces words by words that fit, and by nothing else."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

from stages.augment.methods import METHODS
from stages.common.errors import AttuneError

WHO, EAT, FOOD, DRINK, LIQUID = (
    ["cooks", "guests", "children", "sailors"],
    ["eat", "chew", "taste"],
    ["bread", "rice", "soup", "fish"],
    ["drink", "sip", "pour"],
    ["water", "milk", "juice", "tea"],
)
CLASSES = (WHO, EAT, FOOD, DRINK, LIQUID)
OTHERS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "##s", "##ing", "not", "the"]


def sentence(rng: random.Random) -> str:
    verb, noun = rng.choice([(EAT, FOOD), (DRINK, LIQUID)])
    return f"{rng.choice(WHO)} {rng.choice(verb)} {rng.choice(noun)} ."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT, small, trained for some seconds on sentences of one grammar."""
    folder = tmp_path_factory.mktemp("masked_lm")
    words = [*OTHERS, *(word for one in CLASSES for word in one)]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=16)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    torch.set_num_threads(1)  # for so small a model, more are slower
    bert, rng = BertForMaskedLM(config), random.Random(0)
    optimizer = torch.optim.Adam(bert.parameters(), 5e-3)
    for _ in range(150):
        batch = tokenizer([sentence(rng) for _ in range(32)], return_tensors="pt")
        labels = torch.full_like(batch["input_ids"], -100)
        rows, places = torch.arange(32), torch.tensor([rng.randint(1, 3) for _ in range(32)])
        labels[rows, places] = batch["input_ids"][rows, places]
        batch["input_ids"][rows, places] = tokenizer.mask_token_id
        bert(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def contextual(model: Path, texts: list[str], seed: int = 1, **settings: Any) -> list[str]:
    given = SimpleNamespace(**{"probability": 0.25, "top_k": 2, "batch_size": 4} | settings)
    return METHODS["contextual"](texts, [f"{seed} {text}" for text in texts], given, {"masked_lm": model}.__getitem__)


TEXTS = [sentence(random.Random(number)) for number in range(40)]


def test_one_word_gives_way_to_another_that_fits_the_rest(model: Path) -> None:
    for old, new in zip(TEXTS, contextual(model, TEXTS), strict=True):
        changed = [(one, other) for one, other in zip(old.split(" "), new.split(" "), strict=True) if one != other]
        assert len(changed) == 1, (old, new)
        assert any(set(changed[0]) <= set(fitting) for fitting in CLASSES), (old, new)


def test_the_words_drawn_do_not_hang_on_the_batch_a_text_is_in(model: Path) -> None:
    whole = contextual(model, TEXTS, batch_size=7)
    assert contextual(model, TEXTS, batch_size=1) == whole
    assert contextual(model, TEXTS[::-1], batch_size=64)[::-1] == whole
    assert contextual(model, TEXTS, seed=2) != whole


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("noun", ["bread", "water"])  # the second is none of the likeliest itself
def test_words_are_drawn_from_the_likeliest_top_k(model: Path, top_k: int, noun: str) -> None:
    texts = [f"Cooks Eat {noun} ."] * 60  # words with capitals stay, so that it is always the last
    settings = SimpleNamespace(probability=0.25, top_k=top_k, batch_size=60)
    made = METHODS["contextual"](texts, [str(number) for number in range(60)], settings, lambda _: model)
    drawn = {text.split(" ")[2] for text in made}
    assert len(drawn) == top_k
    assert drawn <= {*FOOD} - {noun}


def test_marks_around_a_word_stay_and_negations_numbers_and_names_are_not_replaced(model: Path) -> None:
    (made,) = contextual(model, ['"cooks," not the two Guests 7'], probability=1.0)
    assert made.startswith('"')
    assert made.endswith('," not the two Guests 7')
    assert made != '"cooks," not the two Guests 7'
    unchanged = "not the two Guests 7 ."
    assert contextual(model, [unchanged], probability=1.0) == [unchanged]
    long = " ".join(["cooks eat bread"] * 20)
    (made,) = contextual(model, [long], probability=1.0, top_k=1000)
    assert made.split(" ")[14:] == long.split(" ")[14:], "words beyond the model's limit stay"
    assert made != long
    assert set(made.split(" ")) <= {word for one in CLASSES for word in one}, "no pieces, marks or stop words"


@pytest.mark.parametrize("text", ["[MASK] cooks eat bread", "", " ", "这部电影", "?!"])
def test_a_text_the_method_can_do_nothing_with_comes_back_as_it_is(model: Path, text: str) -> None:
    assert contextual(model, [text]) == [text]


def test_a_model_whose_head_was_never_trained_is_refused(model: Path, tmp_path: Path) -> None:
    BertModel.from_pretrained(model).save_pretrained(tmp_path)
    BertTokenizer.from_pretrained(model).save_pretrained(tmp_path)
    with pytest.raises(AttuneError, match=r"ingest\.resources\.masked_lm: weights of this model's head are missing"):
        contextual(tmp_path, TEXTS)


def test_pickled_weights_are_not_opened(model: Path, tmp_path: Path) -> None:
    bert = BertForMaskedLM.from_pretrained(model)
    bert.config.save_pretrained(tmp_path)
    BertTokenizer.from_pretrained(model).save_pretrained(tmp_path)
    torch.save(bert.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(AttuneError, match=r"ingest\.resources\.masked_lm: transformers cannot open the model"):
        contextual(tmp_path, TEXTS)
