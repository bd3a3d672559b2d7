"""Methods with pretrained models, tried with real ones of toy languages: what fits comes in, and nothing else."""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sentencepiece import SentencePieceTrainer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
)

from stages.augment.pretrained import back_translation, contextual
from stages.common.errors import AttuneError

# ── a masked language model replaces words by words that fit ────────────────────────────────────────────────────────

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


def fit(model: torch.nn.Module, loss: Callable[[random.Random], torch.Tensor], steps: int, rate: float) -> None:
    rng, optimizer = random.Random(0), torch.optim.Adam(model.parameters(), rate)
    for _ in range(steps):
        loss(rng).backward()
        optimizer.step()
        optimizer.zero_grad()


SENTENCES = [sentence(random.Random(number)) for number in range(40)]


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT, small, trained for some seconds on sentences of one grammar."""
    folder = tmp_path_factory.mktemp("masked_lm")
    words = [*OTHERS, *(word for words in CLASSES for word in words)]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=16)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    shape |= {"vocab_size": len(words), "max_position_embeddings": 16, "initializer_range": 0.1}
    torch.manual_seed(0)
    bert = BertForMaskedLM(BertConfig(**shape, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))

    def loss(rng: random.Random) -> torch.Tensor:
        batch = tokenizer([sentence(rng) for _ in range(32)], return_tensors="pt")
        labels = torch.full_like(batch["input_ids"], -100)
        rows, places = torch.arange(32), torch.tensor([rng.randint(1, 3) for _ in range(32)])
        labels[rows, places] = batch["input_ids"][rows, places]
        batch["input_ids"][rows, places] = tokenizer.mask_token_id
        return bert(**batch, labels=labels).loss

    fit(bert, loss, 150, 5e-3)
    bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def filled(model: Path, texts: list[str], seed: int = 1, **settings: Any) -> list[str]:
    given = SimpleNamespace(**{"probability": 0.25, "top_k": 2, "batch_size": 4} | settings)
    return contextual(texts, [f"{seed} {number} {text}" for number, text in enumerate(texts)], given, lambda _: model)


def test_one_word_is_replaced_by_another_that_fits_whatever_batch_a_text_is_in(masked_lm: Path) -> None:
    made = filled(masked_lm, SENTENCES, batch_size=7)
    for old, new in zip(SENTENCES, made, strict=True):
        changed = [{word, other} for word, other in zip(old.split(" "), new.split(" "), strict=True) if word != other]
        assert len(changed) == 1, (old, new)
        assert any(changed[0] <= set(fitting) for fitting in CLASSES), (old, new)
    assert filled(masked_lm, SENTENCES, batch_size=1) == filled(masked_lm, SENTENCES, batch_size=64) == made
    assert filled(masked_lm, SENTENCES, seed=2) != made


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("noun", ["bread", "water"])  # the second is none of the likeliest itself
def test_words_are_drawn_from_the_likeliest_top_k(masked_lm: Path, top_k: int, noun: str) -> None:
    texts = [f"Cooks Eat {noun} ."] * 60  # words with capitals stay, so that it is always the last
    drawn = {text.split(" ")[2] for text in filled(masked_lm, texts, top_k=top_k, batch_size=60)}
    assert len(drawn) == top_k
    assert drawn <= {*FOOD} - {noun}


def test_marks_around_a_word_stay_and_negations_numbers_and_names_are_not_replaced(masked_lm: Path) -> None:
    (made,) = filled(masked_lm, ['"cooks," not the two Guests 7'], probability=1.0)
    assert made.startswith('"')
    assert made.endswith('," not the two Guests 7')
    assert made != '"cooks," not the two Guests 7'
    long = " ".join(["cooks eat bread"] * 20)
    (made,) = filled(masked_lm, [long], probability=1.0, top_k=1000)
    assert made.split(" ")[14:] == long.split(" ")[14:], "words beyond the model's limit stay"
    assert made != long
    assert set(made.split(" ")) <= {word for words in CLASSES for word in words}, "no pieces, marks or stop words"
    for text in ("not the two Guests 7 .", "[MASK] cooks eat bread", "", " ", "这部电影", "?!"):
        assert filled(masked_lm, [text], probability=1.0) == [text]


def test_a_head_that_was_never_trained_and_pickled_weights_are_refused(masked_lm: Path, tmp_path: Path) -> None:
    for folder in (headless := tmp_path / "headless", pickled := tmp_path / "pickled"):
        BertTokenizer.from_pretrained(masked_lm).save_pretrained(folder)
    BertModel.from_pretrained(masked_lm).save_pretrained(headless)
    with pytest.raises(AttuneError, match=r"ingest\.resources\.masked_lm: weights of this model's head are missing"):
        filled(headless, SENTENCES)
    bert = BertForMaskedLM.from_pretrained(masked_lm)
    bert.config.save_pretrained(pickled)
    torch.save(bert.state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(AttuneError, match=r"ingest\.resources\.masked_lm: transformers cannot open the model"):
        filled(pickled, SENTENCES)


# ── translation in a language in which each word becomes the next of a list ─────────────────────────────────────────

WORDS = ["film", "plot", "actor", "scene", "music", "script"]
VOCABULARY = ["</s>", "<unk>", *(f"▁{word}" for word in WORDS), "<pad>"]  # in the order that MarianMT's files have
PAD = VOCABULARY.index("<pad>")
LONGEST = 5  # words in a text that the model was trained on


def after(text: str, steps: int) -> str:
    return " ".join(WORDS[(WORDS.index(word) + steps) % len(WORDS)] for word in text.split())


def some_text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, LONGEST)))


TEXTS = [some_text(random.Random(number)) for number in range(30)]


@pytest.fixture(scope="module")
def marian_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MarianMT, small, trained for some seconds."""
    folder = tmp_path_factory.mktemp("translation")
    pieces = io.BytesIO()
    words = {"sentence_iterator": iter(WORDS * 5), "vocab_size": len(VOCABULARY), "model_type": "word"}
    SentencePieceTrainer.train(**words, model_writer=pieces, minloglevel=2)
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(pieces.getvalue())
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(VOCABULARY)}))
    files = {"vocab": "vocab.json", "source_spm": "source.spm", "target_spm": "target.spm"}
    tokenizer = MarianTokenizer(
        **{key: str(folder / name) for key, name in files.items()}, model_max_length=LONGEST + 1
    )
    sizes = {"layers": 1, "attention_heads": 2, "ffn_dim": 64}
    shape: dict[str, Any] = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()}
    shape |= {"vocab_size": len(VOCABULARY), "d_model": 32, "max_position_embeddings": 32, "init_std": 0.1}
    ids = {"pad_token_id": PAD, "eos_token_id": 0, "decoder_start_token_id": PAD, "forced_eos_token_id": None}
    config = MarianConfig(**shape, **ids, dropout=0.0, scale_embedding=True)
    torch.manual_seed(0)
    marian = MarianMTModel(config)

    def loss(rng: random.Random) -> torch.Tensor:
        marian.model.shared.weight.data[PAD] = 0.0  # as in models trained with Marian
        texts = [some_text(rng) for _ in range(32)]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        labels = tokenizer([after(text, 1) for text in texts], padding=True, return_tensors="pt")["input_ids"]
        return marian(**batch, labels=labels.masked_fill(labels == PAD, -100)).loss

    fit(marian, loss, 400, 3e-3)
    marian.model.shared.weight.data[PAD] = 0.0
    marian.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def translated(model: Path, texts: list[str], **settings: Any) -> list[str]:
    given = SimpleNamespace(**{"num_beams": 2, "max_new_tokens": 12, "batch_size": 3} | settings)
    return back_translation(texts, [""] * len(texts), given, lambda _: model)


def test_texts_go_there_and_back_and_those_too_long_for_the_model_or_the_answer_stay_as_they_are(
    marian_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, long = marian_model, " ".join(WORDS)  # six words and the end: one more than the model takes
    assert translated(folder, TEXTS) == [after(text, 2) for text in TEXTS]
    assert translated(folder, [long, "film"]) == [long, "actor"]
    assert "1 texts too long for the model" in capsys.readouterr().out
    unfinished = "film plot music scene"
    assert translated(folder, [unfinished, "film"], max_new_tokens=3) == [unfinished, "actor"]
