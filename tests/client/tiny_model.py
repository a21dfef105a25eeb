"""A model folder small enough to write by hand: one Llama layer, a byte-level tokenizer, a chat template."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, WIDE, VOCAB = 8, 16, 260
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (VOCAB, HIDDEN),
    **{f"model.layers.0.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"},
    "model.layers.0.mlp.gate_proj.weight": (WIDE, HIDDEN),
    "model.layers.0.mlp.up_proj.weight": (WIDE, HIDDEN),
    "model.layers.0.mlp.down_proj.weight": (HIDDEN, WIDE),
    "model.layers.0.input_layernorm.weight": (HIDDEN,),
    "model.layers.0.post_attention_layernorm.weight": (HIDDEN,),
    "model.norm.weight": (HIDDEN,),
}
#: rank x (rows + columns) over the seven linear layers
LORA_PARAMS_PER_RANK = 4 * 2 * HIDDEN + 3 * (HIDDEN + WIDE)


def num_params() -> int:
    total = 0
    for shape in SHAPES.values():
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    special = {"eos_token": "<eos>", "pad_token": "<pad>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    _write_tokenizer(folder / "tokenizer.json")
    _write_weights(folder / "model.safetensors")
    (folder / "secret-notes.txt").write_text("must never travel")
    return folder


def _write_tokenizer(path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate([*alphabet, "<eos>", "<pad>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
    # both are in the vocabulary; marked special here because the library's own call is untyped
    content = json.loads(path.read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] = [{"id": vocab[token], "content": token, **flags} for token in ("<eos>", "<pad>")]
    path.write_text(json.dumps(content))


def _write_weights(path: Path) -> None:
    """safetensors: header length, JSON header, zeros."""
    header: dict[str, object] = {}
    end = 0
    for name, shape in SHAPES.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


def write_checkpoint(folder: Path, *, params: int = 2 * LORA_PARAMS_PER_RANK, moments: bool = True) -> Path:
    """A checkpoint folder of so many parameters, all zero, as `job download` writes it."""
    folder.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [params], "data_offsets": [0, 4 * params]}}).encode()
    for name in ("weights", "moments_m", "moments_v") if moments else ("weights",):
        (folder / f"{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * params))
    state = {"format": "shardwork.checkpoint.v1", "method": "lora", "adam_step": 30, "round": 2}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def write_job(folder: Path, *, budget_sats: int = 2000, rows: int = 40, extra: str = "") -> Path:
    """A flat sft job file with its model and data beside it."""
    if not (folder / "models").exists():
        write_model(folder / "models" / "tiny")
    data = folder / "data"
    data.mkdir(exist_ok=True)
    lines = [{"prompt": f"What is {number}?", "completion": f" It is {number}."} for number in range(rows)]
    (data / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (data / "valid.jsonl").write_text("".join(json.dumps({**line, "prompt": "Held out: "}) + "\n" for line in lines))
    path = folder / "job.yaml"
    path.write_text(
        "name: tutor\n"
        "recipe: sft\n"
        "base_model: ./models/tiny\n"
        "data: ./data/train.jsonl\n"
        "eval_data: ./data/valid.jsonl\n"
        "params: {method: lora, rank: 2, max_length: 64}\n"
        "plan: {rounds: 2, shards_per_round: 2, inner_steps: 3}\n"
        "trust: {class: public}\n"
        f"budget: {{max_sats: {budget_sats}}}\n{extra}"
    )
    return path
