"""Make a masked language model out of the base model: its encoder, and a head trained on the training texts alone.

    python -m benchmarks.masked_lm OUT EPOCHS SEED THREADS

Run by augmentation.py in its copy of the checkout. Sentence encoders such as MiniLM come without the head that fills
masks; here it begins anew, tied to the word embeddings, and 15 % of the tokens are masked (Devlin et al. 2019).
"""

import sys
from pathlib import Path

import polars as pl
import torch
from transformers import AutoTokenizer, BertForMaskedLM, DataCollatorForLanguageModeling

BATCH, LENGTH, RATE = 32, 128, 3e-4


def main(out: str, epochs: int, seed: int, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    base = Path("models/base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = BertForMaskedLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    masked = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    texts = pl.read_parquet("data/clean/train.parquet")["text"].to_list()
    ids = [{"input_ids": one} for one in tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]]
    ids.sort(key=lambda one: len(one["input_ids"]))  # batches of one length: little padding
    batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * len(batches), pct_start=0.1)
    model.train()
    for _ in range(epochs):
        for at in torch.randperm(len(batches)).tolist():
            batch = masked(batches[at])
            labels = batch.pop("labels")
            states = model.bert(**batch).last_hidden_state[labels != -100]  # [masked x d]: the head is dear elsewhere
            torch.nn.functional.cross_entropy(model.cls(states), labels[labels != -100]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
