"""Conversations, and tiny untrained language models with a chat template, that tests train in seconds."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from transformers import AutoTokenizer

from stages.common.params.ingest import Scratch
from stages.common.params.root import TokenizeParams
from stages.ingest.scratch import build_scratch_language_model
from stages.tasks.causal_lm import TASK
from stages.tasks.language_models import base_model
from tests.projects import TINY

WORDS = {"are you open": "until six", "do you repair tyres": "while you wait", "who are you": "a shop for bicycles"}
SPACE: dict[str, Any] = {"max_length": 128, "pairs": False}
PARAMS = TokenizeParams(max_length=128)


def label(*turns: str, system: str = "", **more: Any) -> str:
    """Return a conversation in which user and assistant speak by turns."""
    start = [{"role": "system", "content": system}] if system else []
    spoken = [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(turns)]
    spoken[-1] |= more
    return json.dumps([*start, *spoken], ensure_ascii=False, separators=(",", ":"))


@cache
def conversations(rows: int, seed: int) -> pl.DataFrame:
    """Return records of conversations of one to three answers, each made of its question."""
    draw, found = random.Random(seed), []
    for number in range(rows):
        turns = []
        for question, answer in draw.choices(list(WORDS.items()), k=draw.randint(1, 3)):
            turns += [f"{question} {draw.choice('abc')}", answer]
        found.append({"id": f"{seed}-{number}", "label": label(*turns), "text": turns[0], "source": "here"})
    table = pl.DataFrame(found)
    return table.with_columns(pl.lit(None, pl.String).alias(name) for name in ("text_pair", "extra"))


def make_language_model(folder: Path, seed: int = 0) -> Path:
    """Write a scratch Llama whose tokenizer knows the words, and return its folder."""
    shape = {**TINY, "vocab_size": 300, "max_position_embeddings": 256}
    build_scratch_language_model([" ".join(pair) for pair in WORDS.items()] * 9, Scratch(**shape), folder, seed)
    return folder


def wording(base: Path) -> dict[str, Any]:
    """Return what encoding.json says of the scratch model."""
    return SPACE | TASK.wording(AutoTokenizer.from_pretrained(base), PARAMS)


def tokenized_chats(base: Path, rows: int, seed: int) -> pl.DataFrame:
    """Return the tokens of conversations."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    table, rejected, _ = TASK.encode(conversations(rows, seed), tokenizer, wording(base), PARAMS)
    assert rejected.is_empty()
    return table


def network(base: Path) -> Any:
    """Return the model to train."""
    return base_model(base, None, 0, frozen=False, bf16=False)
