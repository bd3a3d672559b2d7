"""Back-translation with real seq2seq models: a toy language in which each word becomes the next of a list."""

import io
import json
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ctranslate2.converters import TransformersConverter
from sentencepiece import SentencePieceTrainer
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from stages.augment.methods import METHODS
from stages.common.errors import AttuneError

WORDS = ["film", "plot", "actor", "scene", "music", "script"]
VOCABULARY = ["</s>", "<unk>", *(f"▁{word}" for word in WORDS), "<pad>"]  # in the order that MarianMT's files have
PAD = VOCABULARY.index("<pad>")
TOKENIZER = ["source.spm", "target.spm", "vocab.json", "tokenizer_config.json"]
LONGEST = 5  # words in a text that the model was trained on


def after(text: str, steps: int) -> str:
    return " ".join(WORDS[(WORDS.index(word) + steps) % len(WORDS)] for word in text.split())


def some_text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, LONGEST)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MarianMT, small, trained for some seconds."""
    folder = tmp_path_factory.mktemp("translation")
    pieces = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 5),
        model_writer=pieces,
        model_type="word",
        vocab_size=len(VOCABULARY),
        minloglevel=2,
    )
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(pieces.getvalue())
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(VOCABULARY)}))
    tokenizer = MarianTokenizer(
        vocab=str(folder / "vocab.json"),
        source_spm=str(folder / "source.spm"),
        target_spm=str(folder / "target.spm"),
        model_max_length=LONGEST + 1,
    )
    config = MarianConfig(
        vocab_size=len(VOCABULARY),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=32,
        pad_token_id=PAD,
        eos_token_id=0,
        decoder_start_token_id=PAD,
        forced_eos_token_id=None,
        dropout=0.0,
        scale_embedding=True,
        init_std=0.1,
    )
    torch.manual_seed(0)
    torch.set_num_threads(1)  # for so small a model, more are slower
    marian, rng = MarianMTModel(config), random.Random(0)
    optimizer = torch.optim.Adam(marian.parameters(), 3e-3)
    for _ in range(400):
        marian.model.shared.weight.data[PAD] = 0.0  # as in models trained with Marian; CTranslate2 counts on it
        texts = [some_text(rng) for _ in range(32)]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        labels = tokenizer([after(text, 1) for text in texts], padding=True, return_tensors="pt")["input_ids"]
        marian(**batch, labels=labels.masked_fill(labels == PAD, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    marian.model.shared.weight.data[PAD] = 0.0
    marian.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def converted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model for CTranslate2, beside the tokenizer's files."""
    folder = tmp_path_factory.mktemp("ctranslate2") / "model"
    TransformersConverter(str(model), copy_files=TOKENIZER).convert(str(folder))
    return folder


def back_translation(model: Path, texts: list[str], **settings: Any) -> list[str]:
    given = SimpleNamespace(**{"num_beams": 2, "max_new_tokens": 12, "batch_size": 3} | settings)
    return METHODS["back_translation"](texts, [""] * len(texts), given, lambda _: model)


TEXTS = [some_text(random.Random(number)) for number in range(30)]


@pytest.mark.parametrize("engine", ["model", "converted"])
def test_texts_go_there_and_back_and_those_too_long_for_the_model_or_the_answer_stay_as_they_are(
    engine: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(engine)
    assert back_translation(folder, TEXTS) == [after(text, 2) for text in TEXTS]
    long = " ".join(WORDS)  # six words and the end: one more than the tokenizer says the model takes
    assert back_translation(folder, [long, "film"]) == [long, "actor"]
    assert "1 texts too long for the model" in capsys.readouterr().out
    assert back_translation(folder, ["film plot music scene", "film"], max_new_tokens=3) == [
        "film plot music scene",
        "actor",
    ]


def test_a_damaged_model_and_a_missing_engine_say_so(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = shutil.copytree(converted, tmp_path / "broken")
    (broken / "model.bin").write_bytes(b"nothing")
    with pytest.raises(AttuneError, match="CTranslate2 cannot open the model there"):
        back_translation(broken, TEXTS)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)  # as if it were not installed
    with pytest.raises(AttuneError, match=r"translation\.forward: a model for CTranslate2") as caught:
        back_translation(converted, TEXTS)
    assert "pip install ctranslate2" in caught.value.fix
