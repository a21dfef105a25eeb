"""Model folders that want more than to be trained: tokenizers and configs that explode, grow, or name code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers

from shardwork.errors import InvalidInput
from shardwork.models.folder import inspect_model
from shardwork.models.pattern import can_explode
from shardwork.models.tokenizer import check_tokenizer

from .test_modelfolder import CONFIG, TENSORS, write_weights

#: as the tokenizers of GPT-2, Llama 3, Qwen 2, GPT-4o, DeepSeek V3, Falcon and BLOOM have them
IN_USE = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+",
    r"(?:'[sS]|'[tT]|'[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}]*[\p{Ll}\p{Lm}\p{M}]+(?i:'s|'t|'re)?|\p{N}{1,3}|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
    r"\d{1,3}(?=(?:\d{3})*\b)",
    " ?[^(\\s|[.,!?…。，、।۔،])]+",
    r"(?>a+)b|(?<name>x)y{2}",
]
EXPLODING = [
    *(r"(a+)+$", r"(a*)*b", r"([a-z]+)*$", r"(?:x+x+)+y", r"(\w+\s?)*$", r"(a|aa)+$", r"(.*a){20,}", r"((a+))+$"),
    *(r"((ab)*)*c", r"(?:a?){50}a{50}", r"(?i:(?:\p{L}+)*)+!", r"(?<w>[^x]+)*$", r"(\(a+\))*(b+c)+"),
]


@pytest.mark.parametrize("expression", IN_USE)
def test_patterns_in_use_are_run(expression: str) -> None:
    assert not can_explode(expression)


@pytest.mark.parametrize("expression", EXPLODING)
def test_patterns_that_take_for_ever_are_not_run(expression: str) -> None:
    assert can_explode(expression)


@pytest.mark.parametrize("odd", ["", "(", ")", "a)+", "[", "[]", "\\", "{", "a{", "a{,}", "*", "(?", "((((", "[[a]"])
def test_broken_patterns_are_read_to_their_end(odd: str) -> None:
    assert can_explode(odd) in (True, False)


def split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def replace(content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": "a"}, "content": content}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def nested(depth: int) -> dict[str, Any]:
    return sequence(nested(depth - 1)) if depth else replace("b")


HOSTILE: dict[str, dict[str, Any]] = {
    "repeats": {"pre_tokenizer": split("(a+)+$")},
    "characters": {"pre_tokenizer": split("a" * 5000)},
    "grow": {"normalizer": replace("b" * 1_000_000)},
    "grow ": {"normalizer": sequence(*[replace("aa")] * 40)},
    "steps": {"normalizer": sequence(*[replace("b")] * 100)},
    "deeply": {"normalizer": nested(50)},
    "adds": {"added_tokens": [{"id": n, "content": str(n)} for n in range(100_001)]},
    "added token": {"added_tokens": [{"id": 1, "content": "x" * 10_000}]},
    "merges": {"model": {"type": "BPE", "vocab": {}, "merges": [""] * 4_000_001}},
    "its vocabulary": {"model": {"type": "BPE", "vocab": {"x" * 5000: 1}, "merges": []}},
    "crowd": {"post_processor": {"type": "TemplateProcessing", "single": [{}] * 1000, "pair": []}},
}


@pytest.mark.parametrize("said", HOSTILE)
def test_a_hostile_tokenizer_is_refused_before_any_library_reads_it(said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_tokenizer(Path("tokenizer.json"), HOSTILE[said])
    assert caught.value.code == "tokenizer.hostile" and said.strip() in caught.value.why.sentence


def test_a_sentencepiece_normaliser_is_run() -> None:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    check_tokenizer(Path("tokenizer.json"), json.loads(made.to_str()))
    assert json.loads(made.to_str())["normalizer"]["normalizers"][0]["type"] == "Prepend"


def changed(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**values, **changes}))

    return change


def deep(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"a":' * 20_000 + "1" + "}" * 20_000)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("model.config", changed("config.json", intermediate_size=2**40)),
        ("model.config", changed("config.json", head_dim=-(2**63))),
        ("model.config", changed("config.json", layer_types=["full_attention"] * 20_000)),
        ("model.code", changed("config.json", text_config={"auto_map": {"AutoModel": "evil.Model"}})),
        ("model.code", changed("config.json", use_kernels=True)),
        ("model.code", changed("config.json", kernel_config={"RMSNorm": "evil/kernels"})),
        ("model.code", changed("generation_config.json", custom_generate="evil/repo")),
        ("model.config", changed("generation_config.json", max_new_tokens=2**50)),
        ("model.bad_json", deep),
        ("tokenizer.hostile", changed("tokenizer.json", pre_tokenizer=split("(a|a)*$"))),
    ],
)
def test_a_hostile_model_folder_is_refused_before_anything_is_built(
    code: str, change: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": []}))
    write_weights(tmp_path / "model.safetensors", TENSORS)
    assert inspect_model(tmp_path).layers == 2
    change(tmp_path)
    with pytest.raises(InvalidInput) as caught:
        inspect_model(tmp_path)
    assert caught.value.code == code, caught.value
