"""What vLLM, llama.cpp and Ollama say they can serve, as a table with its sources and their dates.

Owns facts about other people's programs, which change without asking us: a name that is missing here is "unknown",
never "no". Read by `shardwork.serving.engines`.
"""

from __future__ import annotations

from dataclasses import dataclass

#: when the sources below were read
READ_ON = "2026-11-27"
SOURCES = {
    "vllm": "vllm-project/vllm docs/models/supported_models.md @0046f77, vllm/lora/peft_helper.py @0214369, "
    "docs.vllm.ai v0.22.1 config/lora",
    "llama.cpp": "ggml-org/llama.cpp conversion/__init__.py @00bdaa1, conversion/gemma.py @061b8c5, "
    "convert_lora_to_gguf.py @0b03ada",
    "ollama": "ollama/ollama convert/convert.go @01cf744, docs.ollama.com/import",
}


@dataclass(frozen=True, slots=True)
class Support:
    """Who lists an architecture. False means that the source does not list it."""

    vllm: bool
    #: whether vLLM serves adapters on it
    vllm_lora: bool
    #: whether llama.cpp converts it to GGUF, which Ollama runs
    llama_cpp: bool
    #: whether Ollama imports its safetensors itself
    ollama: bool


def _row(marks: str) -> Support:
    """v: vLLM, l: adapters in vLLM, c: llama.cpp converts it, o: Ollama imports it."""
    return Support(vllm="v" in marks, vllm_lora="l" in marks, llama_cpp="c" in marks, ollama="o" in marks)


SUPPORT: dict[str, Support] = {
    name: _row(marks)
    for marks, names in {
        "vlco": (
            "Gemma2ForCausalLM Gemma3ForCausalLM GemmaForCausalLM Glm4MoeLiteForCausalLM GptOssForCausalLM "
            "Lfm2ForCausalLM LlamaForCausalLM MixtralForCausalLM Olmo3ForCausalLM Phi3ForCausalLM Qwen2ForCausalLM"
        ),
        "vlc": (
            "Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM Exaone4ForCausalLM FalconH1ForCausalLM Gemma4ForCausalLM "
            "Glm4ForCausalLM Glm4MoeForCausalLM GlmForCausalLM GraniteForCausalLM GraniteMoeForCausalLM "
            "GraniteMoeHybridForCausalLM GraniteMoeSharedForCausalLM HunYuanDenseV1ForCausalLM JambaForCausalLM "
            "Lfm2MoeForCausalLM MiniMaxM2ForCausalLM MistralForCausalLM NemotronForCausalLM NemotronHForCausalLM "
            "Olmo2ForCausalLM OlmoForCausalLM PhiForCausalLM Qwen2MoeForCausalLM Qwen3ForCausalLM "
            "Qwen3MoeForCausalLM Qwen3NextForCausalLM SeedOssForCausalLM SmolLM3ForCausalLM Starcoder2ForCausalLM "
            "GPTBigCodeForCausalLM"
        ),
        "vc": (
            "BloomForCausalLM FalconForCausalLM FalconMambaForCausalLM GPT2LMHeadModel GPTNeoXForCausalLM "
            "Gemma3nForCausalLM Jais2ForCausalLM Mamba2ForCausalLM MambaForCausalLM MellumForCausalLM "
            "MiMoV2FlashForCausalLM OlmoeForCausalLM StableLmForCausalLM"
        ),
        "vl": "OPTForCausalLM VaultGemmaForCausalLM OlmoHybridForCausalLM",
        "v": "GPTJForCausalLM FlexOlmoForCausalLM",
    }.items()
    for name in names.split()
}

#: ranks that vLLM's --max-lora-rank takes; without it, up to the second
VLLM_RANKS = (16, 32, 64, 128, 256, 320, 512)
VLLM_DEFAULT_RANK = 16

#: scaling of positions that a server's loader knows; "default" is none
ROPE = {
    "vllm": frozenset({"default", "linear", "dynamic", "yarn", "llama3", "longrope"}),
    "llama.cpp": frozenset({"default", "linear", "yarn", "llama3", "longrope"}),
}

#: architectures whose converter in llama.cpp reads tokenizer.model and nothing else
NEEDS_SENTENCEPIECE = frozenset({"GemmaForCausalLM", "Gemma2ForCausalLM"})

#: size of a byte-level BPE vocabulary (without added tokens) -> whose it is. llama.cpp knows such a tokenizer by a hash
#: of what it makes of a text, so one that was trained or changed is refused.
KNOWN_BPE = {
    50257: "GPT-2",
    50254: "GPT-NeoX",
    49152: "StarCoder and SmolLM",
    128000: "Llama 3",
    151643: "Qwen 2 and 3",
}
