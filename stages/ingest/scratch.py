"""Small untrained models with tokenizers built from the data: a BERT, and a Llama that knows turns of a chat."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.common.params.ingest import Scratch

SIZES = {"hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"}
LONGEST_WORD = 100  # characters; max_input_chars_per_word of WordPiece
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TURNS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
CHATML = (  # OpenAI's chat markup, as SmolLM2 and Qwen have it
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_scratch_model(texts: Iterable[str], scratch: Scratch, target: Path, seed: int) -> None:
    """Write model and tokenizer to `target`.

    The tokenizer sees the texts of every row, never a label. The same texts and seed give the same bytes.
    """
    import torch
    from tokenizers import processors
    from transformers import BertConfig, BertModel, BertTokenizerFast, logging

    logging.disable_progress_bar()
    tokenizer = _word_pieces(train_vocabulary(list(texts), scratch.vocab_size))
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    ends = ((token, SPECIAL_TOKENS.index(token)) for token in ("[SEP]", "[CLS]"))  # the trainer numbers them first
    tokenizer.post_processor = processors.BertProcessing(*ends)
    fast = BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=scratch.max_position_embeddings)
    fast.save_pretrained(target)

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        intermediate_size=4 * scratch.hidden_size,
        pad_token_id=0,
        **scratch.model_dump(include=SIZES),
    )
    BertModel(config).save_pretrained(target)


def build_scratch_language_model(texts: Iterable[str], scratch: Scratch, target: Path, seed: int) -> None:
    """Write a Llama, and a tokenizer of bytes and their pairs with a chat template, to `target`: see above."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, logging

    logging.disable_progress_bar()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    size = max(scratch.vocab_size, 256 + len(TURNS))  # any text is made of the bytes
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=TURNS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    pad, _, end = TURNS
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token=end, model_max_length=scratch.max_position_embeddings
    )
    fast.chat_template = CHATML
    fast.save_pretrained(target)

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        intermediate_size=4 * scratch.hidden_size,
        pad_token_id=TURNS.index(pad),
        bos_token_id=None,
        eos_token_id=TURNS.index(end),
        tie_word_embeddings=True,
        **scratch.model_dump(include=SIZES),
    )
    LlamaForCausalLM(config).save_pretrained(target)


def _word_pieces(vocabulary: dict[str, int]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def train_vocabulary(texts: list[str], size: int) -> dict[str, int]:
    """Train a WordPiece vocabulary that depends on the texts alone.

    Left to itself, the trainer numbers the pieces inside of words (`##a`) in the order of a hash map with a random
    seed, and pairs of equal count are merged in the order of these numbers. Pieces that are given as special tokens
    are numbered first, in their order; that they are special ends with this function.
    """
    from tokenizers import trainers

    tokenizer = _word_pieces({})
    inner: set[str] = set()
    shortened = []
    for text in texts:
        words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]
        # The merges of a word take time by the square of its length, and WordPiece calls a longer one unknown anyway.
        too_long = any(len(word) > LONGEST_WORD for word in words)
        shortened.append(" ".join(word[:LONGEST_WORD] for word in words) if too_long else text)
        for word in words:
            inner.update(word[1:LONGEST_WORD])
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *(f"##{character}" for character in sorted(inner))],
        limit_alphabet=100_000,
        show_progress=False,
    )
    tokenizer.train_from_iterator(shortened, trainer)
    return dict(tokenizer.get_vocab())
