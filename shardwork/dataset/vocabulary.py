"""A byte-level BPE tokenizer trained on the data: deterministic, and loadable by transformers.

Owns the tokenizer of jobs that start from nothing. Any text encodes without unknown tokens, because every byte is in
the alphabet (Sennrich et al. 2016; byte level as in Radford et al. 2019). Called by `prepare`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ..errors import InvalidInput

EOS, PAD = "<|endoftext|>", "<|pad|>"
#: in the order of their ids
SPECIAL = (EOS, PAD)
#: 256 bytes and two special tokens
MIN_VOCAB = 258
#: merges learnt from more text hardly change, and training time grows with it
SAMPLE_BYTES = 32 << 20


def train_vocabulary(texts: Iterable[str], vocab_size: int, *, total_bytes: int) -> Tokenizer:
    """Learns the merges from an even sample of `texts`, which hold `total_bytes` in all.

    Raises InvalidInput "vocabulary.too_small".
    """
    if vocab_size < MIN_VOCAB:
        raise InvalidInput(
            "vocabulary.too_small",
            f"A vocabulary of {vocab_size} cannot hold every byte and the special tokens.",
            next_step=f"Set params.vocab_size to at least {MIN_VOCAB}.",
            key="params.vocab_size",
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(texts, total_bytes), trainer)
    return tokenizer


def _sample(texts: Iterable[str], total_bytes: int) -> Iterator[str]:
    """Every text, or evenly spaced ones once the whole is larger than the sample."""
    share = min(1.0, SAMPLE_BYTES / max(total_bytes, 1))
    owed = 1.0
    for text in texts:
        owed += share
        if owed >= 1:
            owed -= 1
            yield text


def write_tokenizer(tokenizer: Tokenizer, folder: Path, *, context: int) -> None:
    """tokenizer.json and tokenizer_config.json."""
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), "utf-8")
    config = {
        "bos_token": EOS,
        "clean_up_tokenization_spaces": False,
        "eos_token": EOS,
        "model_max_length": context,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
