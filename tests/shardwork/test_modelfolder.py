"""Model folders: counted as transformers and PEFT count them, refused when they could run code or are broken."""

# pyright: standard

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardwork.errors import InvalidInput
from shardwork.models.architectures import CAUSAL_LM
from shardwork.models.folder import full_params, inspect_model, lora_params, partial_params, upload_files
from shardwork.tensors.header import read_header

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "vocab_size": 10,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
TENSORS: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (10, 4),
    **{f"model.layers.{n}.self_attn.q_proj.weight": (4, 4) for n in range(2)},
    **{f"model.layers.{n}.mlp.up_proj.weight": (6, 4) for n in range(2)},
    **{f"model.layers.{n}.input_layernorm.weight": (4,) for n in range(2)},
    "model.norm.weight": (4,),
    "lm_head.weight": (10, 4),
}


def write_weights(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    header: dict[str, Any] = {}
    position = 0
    for name, shape in tensors.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    write_raw(path, json.dumps(header), position)


def write_raw(path: Path, header: str, data_bytes: int) -> None:
    encoded = header.encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(data_bytes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}))
    write_weights(tmp_path / "model.safetensors", TENSORS)
    return tmp_path


def split(folder: Path) -> dict[str, Any]:
    """Rewrites the weights as two files with an index, and returns the index."""
    names = list(TENSORS)
    parts = {"model-00001-of-00002.safetensors": names[:4], "model-00002-of-00002.safetensors": names[4:]}
    (folder / "model.safetensors").unlink()
    for file, kept in parts.items():
        write_weights(folder / file, {name: TENSORS[name] for name in kept})
    index = {"metadata": {}, "weight_map": {name: file for file, kept in parts.items() for name in kept}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_a_sound_folder_is_measured(folder: Path) -> None:
    facts = inspect_model(folder)
    assert facts.run_params == full_params(facts) == 40 + 2 * (16 + 24 + 4) + 4 + 40
    assert (facts.model_type, facts.hidden_size, facts.layers, facts.vocab_size) == ("llama", 4, 2, 10)
    assert (facts.context_length, facts.tied_embeddings, facts.has_chat_template) == (64, False, False)
    assert lora_params(facts, 2) == 2 * 2 * (8 + 10)
    assert lora_params(facts, 2, ["q_proj"]) == 2 * 2 * 8
    assert partial_params(facts, 1) == 16 + 24 + 4 + 4
    assert partial_params(facts, 2, final_norm=False, head=True) == 2 * 44 + 40


def test_a_split_model_measures_the_same(folder: Path) -> None:
    whole = inspect_model(folder).run_params
    split(folder)
    facts = inspect_model(folder)
    assert facts.run_params == whole
    assert "model-00002-of-00002.safetensors" in facts.files and "model.safetensors.index.json" in facts.files


def test_questions_that_have_no_answer_name_the_fix(folder: Path) -> None:
    facts = inspect_model(folder)
    with pytest.raises(InvalidInput, match="Did you mean 'q_proj'"):
        lora_params(facts, 2, ["q_pro"])
    with pytest.raises(InvalidInput, match="at most 2"):
        partial_params(facts, 3)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": True}))
    tied = inspect_model(folder)
    assert tied.run_params == facts.run_params - 40
    with pytest.raises(InvalidInput, match="tied"):
        partial_params(tied, 1, head=True)


def test_only_named_files_travel(folder: Path) -> None:
    for name in ("pytorch_model.bin", "optimizer.pt", "notes.txt", ".env", "training_args.bin", "extra.safetensors"):
        (folder / name).write_bytes(b"x")
    (folder / "chat_template.jinja").write_text("{{ 1 }}")
    assert upload_files(folder) == ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]
    assert inspect_model(folder).has_chat_template


def _config(**changes: Any) -> Callable[[Path], object]:
    kept = {key: value for key, value in {**CONFIG, **changes}.items() if value != "absent"}
    return lambda folder: (folder / "config.json").write_text(json.dumps(kept))


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80")


def _index(**changes: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        index = split(folder)
        index["weight_map"] = {**index["weight_map"], **changes}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return apply


def _adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def _large_token(folder: Path) -> None:
    added = [{"id": 10, "content": "<x>"}]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {}}, "added_tokens": added}))


def _tokenizer(added: Any, model: Any) -> Callable[[Path], object]:
    text = json.dumps({"model": model, "added_tokens": added})
    return lambda folder: (folder / "tokenizer.json").write_text(text)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "model.no_config"),
    "an adapter": (_adapter, "model.no_config"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "model.bad_json"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), "model.bad_json"),
    "auto_map": (_config(auto_map={"AutoModel": "a.B"}), "model.code"),
    "tokenizer auto_map": (
        lambda folder: (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "a"}}'),
        "model.code",
    ),
    "a code file": (lambda folder: (folder / "modeling_x.py").write_text(""), "model.code"),
    "a foreign kernel": (_config(_attn_implementation="someone/kernel"), "model.code"),
    "quantised": (_config(quantization_config={"bits": 4}), "model.quantised"),
    "no type": (_config(model_type="absent"), "model.type"),
    "an encoder": (_config(model_type="vit"), "model.type"),
    "another head": (_config(architectures=["LlamaForSequenceClassification"]), "model.architecture"),
    "no vocabulary": (_config(vocab_size="absent"), "model.config"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "model.no_tokenizer"),
    "a foreign tokenizer": (_large_token, "model.vocabulary"),
    "a tokenizer that is none": (_tokenizer([5], {}), "tokenizer.bad"),
    "a tokenizer without a model": (_tokenizer([], [5]), "tokenizer.bad"),
    "heads in quotes": (_config(num_attention_heads="2"), "model.config"),
    "no room for a token": (_config(max_position_embeddings=0), "model.config"),
    "another vocabulary": (_config(vocab_size=12), "model.shape"),
    "more layers than weights": (_config(num_hidden_layers=3), "model.shape"),
    "pickled weights": (_pickled, "model.pickle"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.no_weights"),
    "index outside": (_index(**{"lm_head.weight": "../../etc/x.safetensors"}), "model.index"),
    "index to nothing": (_index(**{"lm_head.weight": "model-9.safetensors"}), "model.index"),
    "index swaps": (_index(**{"lm_head.weight": "model-00001-of-00002.safetensors"}), "model.index"),
    "index too long": (_index(more="model-00001-of-00002.safetensors"), "model.index"),
    "cut short": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4]),
        "model.bad_tensors",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_folder_is_refused_naming_file_and_fix(name: str, folder: Path) -> None:
    spoil, code = REFUSED[name]
    spoil(folder)
    with pytest.raises(InvalidInput) as caught:
        inspect_model(folder)
    assert caught.value.code == code
    assert str(folder) in caught.value.why.evidence["file"] and caught.value.why.next_step


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no model folder"):
        inspect_model(tmp_path / "none")


ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
HOSTILE = {
    "duplicate key": (f'{{"a":{ENTRY},"a":{ENTRY}}}', 4),
    "traversing name": (f'{{"../a":{ENTRY}}}', 4),
    "zero byte in a name": (f'{{"a\\u0000b":{ENTRY}}}', 4),
    "gap": ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', 8),
    "overlap": (f'{{"a":{ENTRY},"b":{ENTRY}}}', 4),
    "beyond the end": ('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 4),
    "bytes left over": (f'{{"a":{ENTRY}}}', 8),
    "shape and bytes differ": ('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', 4),
    "absurd side": ('{"a":{"dtype":"F32","shape":[0,1099511627776],"data_offsets":[0,0]}}', 0),
    "a thousand dims": (json.dumps({"a": {"dtype": "F32", "shape": [1] * 1000, "data_offsets": [0, 4]}}), 4),
    "negative": ('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', 4),
    "truth for a number": ('{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', 4),
    "unknown dtype": ('{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}', 4),
    "other keys": ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}', 4),
    "leading spaces": (f'  {{"a":{ENTRY}}}', 4),
    "not json": ("{oops}", 0),
    "deep": ("[" * 100_000, 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_raw(path, *HOSTILE[name])
    with pytest.raises(InvalidInput) as caught:
        read_header(path)
    assert caught.value.code == "model.bad_tensors"


def test_a_header_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(InvalidInput):
        read_header(path)


def test_every_allowed_architecture_is_built_into_the_installed_transformers() -> None:
    """A newer transformers may know more; what is allowed here must be there, under the same class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known: dict[str, object] = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert len(CAUSAL_LM) > 100
    assert {kind: known.get(kind) for kind in CAUSAL_LM} == CAUSAL_LM


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_counts_are_those_of_transformers_and_peft(kind: str, tmp_path: Path) -> None:
    import transformers
    from peft import LoraConfig, get_peft_model

    library: Any = transformers

    small: dict[str, Any] = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = {
        "llama": lambda: library.LlamaConfig(**small, tie_word_embeddings=False),
        "gpt2": lambda: library.GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=32),
        "qwen3": lambda: library.Qwen3Config(**small, head_dim=8, tie_word_embeddings=True),
    }[kind]()
    model = library.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    facts = inspect_model(tmp_path)
    assert facts.run_params == sum(parameter.numel() for parameter in model.parameters())
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert lora_params(facts, 4) == sum(each.numel() for each in adapted.parameters() if each.requires_grad)
