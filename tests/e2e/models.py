"""Model folders, tokenizers and data of the end-to-end tests: two GPT-2 layers and a byte-pair vocabulary of their own.

Written by hand from seeded noise, so that no test loads torch to make one. Used by the end-to-end and chaos tests.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from shardwork.tensors.file import write_tensors

WIDTH, LAYERS, POSITIONS, VOCAB = 24, 2, 128, 320
TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
RIVERS = ("Aare", "Douro", "Elbe", "Indus", "Jordan", "Kura", "Lena", "Mosel", "Neva", "Orinoco", "Po", "Volga")


def write_gpt2(folder: Path, *, seed: int = 7, positions: int = POSITIONS, spread: float = 0.05) -> Path:
    """A GPT-2 model folder of about 25,000 parameters with tied embeddings and its own chat template. A wide `spread`
    of its weights makes it listen to every word."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": WIDTH,
        "n_head": 2,
        "n_layer": LAYERS,
        "n_positions": positions,
        "vocab_size": VOCAB,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder)
    rng = np.random.default_rng(seed)
    shapes = _shapes(positions)
    weights = {name: (rng.standard_normal(shape) * spread).astype(np.float32) for name, shape in shapes.items()}
    for name in weights:
        if name.split(".")[-2].startswith("ln_") and name.endswith(".weight"):
            weights[name] = np.ones(shapes[name], np.float32)
    write_tensors(folder / "model.safetensors", weights, metadata={"format": "pt"})
    return folder


def _shapes(positions: int) -> dict[str, tuple[int, ...]]:
    """GPT-2 keeps the weights of its linear layers as (in, out)."""
    found: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (VOCAB, WIDTH)}
    found["transformer.wpe.weight"] = (positions, WIDTH)
    linear = {"attn.c_attn": (WIDTH, 3 * WIDTH), "attn.c_proj": (WIDTH, WIDTH)}
    linear |= {"mlp.c_fc": (WIDTH, 4 * WIDTH), "mlp.c_proj": (4 * WIDTH, WIDTH)}
    for layer in (f"transformer.h.{number}" for number in range(LAYERS)):
        for name, (rows, columns) in linear.items():
            found[f"{layer}.{name}.weight"] = (rows, columns)
            found[f"{layer}.{name}.bias"] = (columns,)
        for norm in ("ln_1", "ln_2"):
            found[f"{layer}.{norm}.weight"] = found[f"{layer}.{norm}.bias"] = (WIDTH,)
    found["transformer.ln_f.weight"] = found["transformer.ln_f.bias"] = (WIDTH,)
    return found


def _write_tokenizer(folder: Path) -> None:
    """Byte-pair merges learnt from the rows that the tests train on."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{question} {answer}" for question, answer in _dialogues(200)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "<|end|>", "bos_token": "<|end|>", "pad_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))


def _dialogues(rows: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for number in range(rows):
        river, other = RIVERS[number % len(RIVERS)], RIVERS[(number * 5 + 1) % len(RIVERS)]
        found.append((f"Which is longer, {river} or {other} ({number})?", f"The {max(river, other)} is longer."))
    return found


def write_chat(path: Path, *, rows: int = 120) -> Path:
    """JSONL of messages: a question and an answer each."""
    lines: list[str] = []
    for question, answer in _dialogues(rows):
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages}) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return path


def write_text(path: Path, *, rows: int = 300) -> Path:
    """JSONL of plain text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": f"{question} {answer}"}) + "\n" for question, answer in _dialogues(rows))
    path.write_text("".join(lines))
    return path


def write_prompts(path: Path, *, rows: int = 16) -> Path:
    """JSONL of prompts with the answer that a verifiable reward wants."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"prompt": f"{question}\n", "answer": answer}) + "\n" for question, answer in _dialogues(rows))
    path.write_text("".join(lines))
    return path


def write_preferences(path: Path, *, rows: int = 24) -> Path:
    """JSONL of pairs: an answer is better than none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = ({"prompt": f"{question}\n", "chosen": answer, "rejected": "No."} for question, answer in _dialogues(rows))
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path
