"""A small untrained BERT with a WordPiece tokenizer built from the data."""

import os
from collections.abc import Iterable
from pathlib import Path

from stages.common.params.sources import Scratch

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build_scratch_model(texts: Iterable[str], scratch: Scratch, target: Path, seed: int) -> list[str]:
    """Write model and tokenizer to `target`; return the names of the files.

    The tokenizer sees the texts of every row, never a label. The same texts and seed give the same bytes.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # merges of equal count would come in the order threads finish
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, BertTokenizerFast, logging

    logging.disable_progress_bar()

    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=scratch.vocab_size, special_tokens=SPECIAL_TOKENS, limit_alphabet=100_000, show_progress=False
    )
    tokenizer.train_from_iterator(sorted(texts), trainer)
    ids = {token: number for number, token in enumerate(SPECIAL_TOKENS)}  # the trainer numbers them first
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    fast = BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=scratch.max_position_embeddings)
    fast.save_pretrained(target)

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=scratch.hidden_size,
        num_hidden_layers=scratch.num_hidden_layers,
        num_attention_heads=scratch.num_attention_heads,
        intermediate_size=4 * scratch.hidden_size,
        max_position_embeddings=scratch.max_position_embeddings,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(target)
    return sorted(file.name for file in target.iterdir())
