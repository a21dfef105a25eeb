"""The model types that may be trained: the causal language models built into transformers; which take packed rows, and
which can be reward models.

Closed lists, so that no model folder can name code of its own, and none is trained in a way that it ignores. Tests
compare the first with the installed transformers and try each of the second. Used by `shardwork.models.folder`, the
recipes, the client and workers.
"""

from __future__ import annotations

from ..errors import InvalidInput

#: models that keep the rows of one sequence apart when position ids begin anew at each. Others, as OPT, BLOOM and MPT,
#: ignore them without a word, and every row would see the ones before it
PACKABLE = frozenset(
    {
        *("gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral", "olmo2", "phi3"),
        *("qwen2", "qwen3", "smollm3", "starcoder2"),
    }
)

_MAMBA = frozenset({"dt_proj", "out_proj"})
#: linear layers whose weights these types read past the layer, so that an adapter around one would be without effect
BYPASSED: dict[str, frozenset[str]] = {
    **dict.fromkeys(("mamba", "falcon_mamba"), _MAMBA),
    **dict.fromkeys(
        ("bamba", "falcon_h1", "granitemoehybrid", "mamba2", "nemotron_h", "zamba2"), frozenset({"out_proj"})
    ),
    "jamba": frozenset({"dt_proj"}),
}
#: where models of experts keep them, and names of what is in them or chooses among them. To transformers experts are no
#: linear layers; PEFT puts adapters on their parameters wherever one of these names is asked for, without regard to
#: chosen layers, DoRA or dropout
EXPERTS = "experts"
_OF_EXPERTS = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})

#: config.json's model_type -> the class that transformers builds for it
CAUSAL_LM: dict[str, str] = {
    "afmoe": "AfmoeForCausalLM",
    "apertus": "ApertusForCausalLM",
    "arcee": "ArceeForCausalLM",
    "aria_text": "AriaTextForCausalLM",
    "axk1": "AXK1ForCausalLM",
    "axk2": "AXK2ForCausalLM",
    "bailing_hybrid": "BailingHybridForCausalLM",
    "bamba": "BambaForCausalLM",
    "bart": "BartForCausalLM",
    "beam": "BeamForCausalLM",
    "bert": "BertLMHeadModel",
    "bert-generation": "BertGenerationDecoder",
    "big_bird": "BigBirdForCausalLM",
    "bigbird_pegasus": "BigBirdPegasusForCausalLM",
    "biogpt": "BioGptForCausalLM",
    "bitnet": "BitNetForCausalLM",
    "blenderbot": "BlenderbotForCausalLM",
    "blenderbot-small": "BlenderbotSmallForCausalLM",
    "bloom": "BloomForCausalLM",
    "blt": "BltForCausalLM",
    "camembert": "CamembertForCausalLM",
    "codegen": "CodeGenForCausalLM",
    "cohere": "CohereForCausalLM",
    "cohere2": "Cohere2ForCausalLM",
    "cohere2_moe": "Cohere2MoeForCausalLM",
    "cohere_compass_text": "CohereCompassForCausalLM",
    "cpmant": "CpmAntForCausalLM",
    "ctrl": "CTRLLMHeadModel",
    "cwm": "CwmForCausalLM",
    "data2vec-text": "Data2VecTextForCausalLM",
    "dbrx": "DbrxForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v32": "DeepseekV32ForCausalLM",
    "deepseek_v4": "DeepseekV4ForCausalLM",
    "diffllama": "DiffLlamaForCausalLM",
    "doge": "DogeForCausalLM",
    "dots1": "Dots1ForCausalLM",
    "dots3_note": "Dots3NoteForCausalLM",
    "dots3_note_text": "Dots3NoteForCausalLM",
    "electra": "ElectraForCausalLM",
    "emu3": "Emu3ForCausalLM",
    "ernie": "ErnieForCausalLM",
    "ernie4_5": "Ernie4_5ForCausalLM",
    "ernie4_5_moe": "Ernie4_5_MoeForCausalLM",
    "exaone4": "Exaone4ForCausalLM",
    "exaone_moe": "ExaoneMoeForCausalLM",
    "falcon": "FalconForCausalLM",
    "falcon_h1": "FalconH1ForCausalLM",
    "falcon_mamba": "FalconMambaForCausalLM",
    "flex_olmo": "FlexOlmoForCausalLM",
    "flint": "FlintForCausalLM",
    "fuyu": "FuyuForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma3n": "Gemma3nForConditionalGeneration",
    "gemma3n_text": "Gemma3nForCausalLM",
    "gemma4": "Gemma4ForConditionalGeneration",
    "gemma4_assistant": "Gemma4AssistantForCausalLM",
    "gemma4_text": "Gemma4ForCausalLM",
    "gemma4_unified": "Gemma4UnifiedForConditionalGeneration",
    "gemma4_unified_assistant": "Gemma4UnifiedAssistantForCausalLM",
    "gemma4_unified_text": "Gemma4UnifiedForCausalLM",
    "git": "GitForCausalLM",
    "glm": "GlmForCausalLM",
    "glm4": "Glm4ForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "glm4_moe_lite": "Glm4MoeLiteForCausalLM",
    "glm_moe_dsa": "GlmMoeDsaForCausalLM",
    "got_ocr2": "GotOcr2ForConditionalGeneration",
    "gpt-sw3": "GPT2LMHeadModel",
    "gpt2": "GPT2LMHeadModel",
    "gpt_bigcode": "GPTBigCodeForCausalLM",
    "gpt_neo": "GPTNeoForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
    "gpt_neox_japanese": "GPTNeoXJapaneseForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "gptj": "GPTJForCausalLM",
    "granite": "GraniteForCausalLM",
    "granite_swa": "GraniteSWAForCausalLM",
    "granitemoe": "GraniteMoeForCausalLM",
    "granitemoe_swa": "GraniteMoeSWAForCausalLM",
    "granitemoehybrid": "GraniteMoeHybridForCausalLM",
    "granitemoeshared": "GraniteMoeSharedForCausalLM",
    "helium": "HeliumForCausalLM",
    "hrm_text": "HrmTextForCausalLM",
    "hunyuan_v1_dense": "HunYuanDenseV1ForCausalLM",
    "hunyuan_v1_moe": "HunYuanMoEV1ForCausalLM",
    "hy_v3": "HYV3ForCausalLM",
    "hy_v4": "HYV4ForCausalLM",
    "hyperclovax": "HyperCLOVAXForCausalLM",
    "inkling2_text": "Inkling2ForCausalLM",
    "inkling_text": "InklingForCausalLM",
    "internlm3": "LlamaForCausalLM",
    "iquestcoder": "LlamaForCausalLM",
    "jais2": "Jais2ForCausalLM",
    "jamba": "JambaForCausalLM",
    "jetmoe": "JetMoeForCausalLM",
    "kimi_linear": "KimiLinearForCausalLM",
    "kolibri1": "Kolibri1ForCausalLM",
    "laguna": "LagunaForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
    "lfm2_moe": "Lfm2MoeForCausalLM",
    "lfm3": "Lfm3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "llama4": "Llama4ForCausalLM",
    "llama4_text": "Llama4ForCausalLM",
    "longcat_flash": "LongcatFlashForCausalLM",
    "mamba": "MambaForCausalLM",
    "mamba2": "Mamba2ForCausalLM",
    "marian": "MarianForCausalLM",
    "mbart": "MBartForCausalLM",
    "megatron-bert": "MegatronBertForCausalLM",
    "mellum": "MellumForCausalLM",
    "mimo_v2_flash": "MiMoV2FlashForCausalLM",
    "minicpm3": "MiniCPM3ForCausalLM",
    "minimax": "MiniMaxForCausalLM",
    "minimax_m2": "MiniMaxM2ForCausalLM",
    "minimax_m3_vl_text": "MiniMaxM3VLForCausalLM",
    "ministral": "MinistralForCausalLM",
    "ministral3": "Ministral3ForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "mllama": "MllamaForCausalLM",
    "modernbert-decoder": "ModernBertDecoderForCausalLM",
    "moshi": "MoshiForCausalLM",
    "moss_transcribe_diarize": "MossTranscribeDiarizeForConditionalGeneration",
    "mpt": "MptForCausalLM",
    "musicgen": "MusicgenForCausalLM",
    "musicgen_melody": "MusicgenMelodyForCausalLM",
    "mvp": "MvpForCausalLM",
    "nanochat": "NanoChatForCausalLM",
    "nemotron": "NemotronForCausalLM",
    "nemotron_h": "NemotronHForCausalLM",
    "olmo": "OlmoForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
    "olmo_hybrid": "OlmoHybridForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "openai-gpt": "OpenAIGPTLMHeadModel",
    "opt": "OPTForCausalLM",
    "pegasus": "PegasusForCausalLM",
    "persimmon": "PersimmonForCausalLM",
    "phi": "PhiForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "phi4_multimodal": "Phi4MultimodalForCausalLM",
    "phimoe": "PhimoeForCausalLM",
    "plbart": "PLBartForCausalLM",
    "prophetnet": "ProphetNetForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_5": "Qwen3_5ForCausalLM",
    "qwen3_5_moe": "Qwen3_5MoeForCausalLM",
    "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
    "qwen3_5_text": "Qwen3_5ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
    "qwen4_exp": "Qwen4ExpForCausalLM",
    "qwen4_exp_text": "Qwen4ExpForCausalLM",
    "recurrent_gemma": "RecurrentGemmaForCausalLM",
    "reformer": "ReformerModelWithLMHead",
    "rembert": "RemBertForCausalLM",
    "roberta": "RobertaForCausalLM",
    "roberta-prelayernorm": "RobertaPreLayerNormForCausalLM",
    "roc_bert": "RoCBertForCausalLM",
    "roformer": "RoFormerForCausalLM",
    "rwkv": "RwkvForCausalLM",
    "seed_oss": "SeedOssForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "solar_open": "SolarOpenForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
    "trocr": "TrOCRForCausalLM",
    "vaultgemma": "VaultGemmaForCausalLM",
    "whisper": "WhisperForCausalLM",
    "xglm": "XGLMForCausalLM",
    "xlm": "XLMWithLMHeadModel",
    "xlm-roberta": "XLMRobertaForCausalLM",
    "xlm-roberta-xl": "XLMRobertaXLForCausalLM",
    "xlnet": "XLNetLMHeadModel",
    "xlstm": "xLSTMForCausalLM",
    "xmod": "XmodForCausalLM",
    "youtu": "YoutuForCausalLM",
    "zamba": "ZambaForCausalLM",
    "zamba2": "Zamba2ForCausalLM",
    "zaya": "ZayaForCausalLM",
}

#: types that transformers also builds as a reward model: one score a row, under the name "score"
SCORABLE = frozenset(
    {
        *("arcee", "bloom", "deepseek_v2", "deepseek_v3", "diffllama", "doge", "exaone4", "falcon", "gemma"),
        *("gemma2", "gemma3_text", "glm", "glm4", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox"),
        *("gpt_oss", "gptj", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "jamba", "jetmoe", "llama"),
        *("minicpm3", "minimax", "ministral", "ministral3", "mistral", "mixtral", "mpt", "nemotron", "olmo"),
        *("olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3"),
        *("qwen3_moe", "qwen3_next", "seed_oss", "smollm3", "stablelm", "starcoder2", "zamba", "zamba2"),
    }
)
#: of them, those whose class is not called as the causal one
_SCORED_NAMES = {"gemma3_text": "Gemma3TextForSequenceClassification"}


def may_adapt(path: str, model_type: str, *, of_experts: bool) -> bool:
    """Whether an adapter may lie around the linear layer at this path. `of_experts`: the model has some."""
    parts = path.split(".")
    if "router" in parts or (of_experts and (EXPERTS in parts or parts[-1] in _OF_EXPERTS)):
        return False
    return parts[-1] not in BYPASSED.get(model_type, frozenset())


def check_packable(model_type: str) -> None:
    """Raises InvalidInput "packing.family" for a model that was not seen to keep packed rows apart."""
    if model_type in PACKABLE:
        return
    raise InvalidInput(
        "packing.family",
        f"Rows can't be packed for models of type {model_type!r}: none was shown to keep rows of a sequence apart.",
        next_step=f"Leave params.packing out. Families that can: {', '.join(sorted(PACKABLE))}.",
        key="params.packing",
        model_type=model_type,
    )


def reward_model(model_type: str) -> str:
    """The class that transformers builds for a reward model of a scorable type."""
    named = CAUSAL_LM[model_type].removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    return _SCORED_NAMES.get(model_type, f"{named}ForSequenceClassification")


def check_scorable(model_type: str) -> None:
    """Raises InvalidInput "model.no_score_head" for a type that transformers builds no reward model of."""
    if model_type in SCORABLE:
        return
    raise InvalidInput(
        "model.no_score_head",
        f"A model of type {model_type!r} can't become a reward model: transformers has no such class for it.",
        next_step="Use a base of another family for the reward model: llama, qwen3, gemma2 and gpt2 can.",
        key="base_model",
        model_type=model_type,
    )
