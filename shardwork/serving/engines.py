"""What vLLM, llama.cpp and Ollama would make of a folder, judged by its names, config and files; nothing is run.

Pure but for looking whether a file is there. The facts stand in `shardwork.serving.support`. Called by
`shardwork.serving.check`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, cast

from .folder import Adapter, Subject
from .results import EngineFit, Finding, Fit
from .support import (
    KNOWN_BPE,
    NEEDS_SENTENCEPIECE,
    READ_ON,
    ROPE,
    SUPPORT,
    VLLM_DEFAULT_RANK,
    VLLM_RANKS,
)

_ORDER = (Fit.LIKELY, Fit.UNKNOWN, Fit.NO)
_MERGE = "Merge it first."


def judge(subject: Subject) -> tuple[EngineFit, ...]:
    """One outlook a server, in a fixed order."""
    return (_vllm(subject), _llama_cpp(subject), _ollama(subject))


def _fit(engine: str, subject: Subject, findings: Sequence[Finding], how: Sequence[str]) -> EngineFit:
    worst = max((finding.fit for finding in findings), key=_ORDER.index)
    if worst is Fit.NO:
        how = (_merge_command(subject),) if subject.adapter else ()
    return EngineFit(engine=engine, fit=worst, findings=tuple(findings), how=tuple(how))


def _merge_command(subject: Subject) -> str:
    base = f" --base {quote(str(subject.base))}"
    return f"shardwork job serve-check {quote(str(subject.folder))}{base} --merge OUT"


def _likely(about: str, sentence: str) -> Finding:
    return Finding(about=about, fit=Fit.LIKELY, sentence=sentence)


def _unknown(about: str, sentence: str) -> Finding:
    return Finding(about=about, fit=Fit.UNKNOWN, sentence=sentence)


def _no(about: str, sentence: str) -> Finding:
    return Finding(about=about, fit=Fit.NO, sentence=sentence)


# ---- vLLM ---------------------------------------------------------------------------------------------------------


def _vllm(subject: Subject) -> EngineFit:
    name = subject.model.architecture
    known = SUPPORT.get(name)
    if known is None or not known.vllm:
        finding = _unknown(
            "architecture", f"{name} is not on vLLM's list (read {READ_ON}); it may run it by transformers."
        )
    else:
        finding = _likely("architecture", f"{name} is on vLLM's list (read {READ_ON}).")
    findings = [finding, _named(subject), _rope(subject, "vllm", "vLLM"), _head(subject), _weights(subject)]
    findings.append(_vocabulary(subject))
    if subject.has_chat_template:
        findings.append(_likely("chat template", "It has one: /v1/chat/completions works as well."))
    else:
        sentence = "It has none: /v1/completions works; /v1/chat/completions needs --chat-template FILE."
        findings.append(_likely("chat template", sentence))
    folder = quote(str(subject.folder))
    if subject.adapter is None:
        return _fit("vllm", subject, findings, [f"vllm serve {folder}"])
    findings += _vllm_adapter(subject.adapter, name, bool(known and known.vllm_lora), bool(known and known.vllm))
    rank = next((each for each in VLLM_RANKS if each >= subject.adapter.rank), VLLM_RANKS[-1])
    more = f" --max-lora-rank {rank}" if rank > VLLM_DEFAULT_RANK else ""
    template = subject.folder / "chat_template.jinja"
    more += f" --chat-template {quote(str(template))}" if template.is_file() else ""
    command = f"vllm serve {quote(str(subject.base))} --enable-lora --lora-modules tuned={folder}{more}"
    return _fit("vllm", subject, findings, [command])


def _vllm_adapter(adapter: Adapter, name: str, lora: bool, known: bool) -> list[Finding]:
    found = [
        _likely("adapters", f"vLLM serves adapters on {name}.")
        if lora
        else _no("adapters", f"vLLM's list names no adapters for {name}. {_MERGE}")
        if known
        else _unknown("adapters", f"Whether vLLM serves adapters on {name} is not known.")
    ]
    if adapter.rank <= VLLM_DEFAULT_RANK:
        found.append(_likely("rank", f"Rank {adapter.rank} is within vLLM's default of {VLLM_DEFAULT_RANK}."))
    elif adapter.rank <= VLLM_RANKS[-1]:
        sentence = f"Rank {adapter.rank} is above vLLM's default of {VLLM_DEFAULT_RANK}: it needs --max-lora-rank."
        found.append(_likely("rank", sentence))
    else:
        found.append(_no("rank", f"Rank {adapter.rank} is above vLLM's largest, {VLLM_RANKS[-1]}. {_MERGE}"))
    if adapter.dora:
        found.append(_no("DoRA", f"vLLM does not serve DoRA. {_MERGE}"))
    if adapter.rslora:
        found.append(_likely("rsLoRA", "vLLM scales by the root of the rank where the config says so."))
    if adapter.bias != "none":
        found.append(_no("bias", f"The adapter holds biases, which vLLM does not serve. {_MERGE}"))
    if adapter.whole_modules:
        whole = ", ".join(adapter.whole_modules[:3])
        found.append(_no("modules_to_save", f"The adapter holds whole modules ({whole}). {_MERGE}"))
    if adapter.mixed:
        found.append(_no("patterns", f"Ranks or scales differ by module; vLLM reads one for all. {_MERGE}"))
    if adapter.on_vocabulary:
        found.append(_unknown("vocabulary", "It changes embedding or head, which vLLM takes for some models only."))
    return found


# ---- llama.cpp and Ollama -----------------------------------------------------------------------------------------


def _llama_cpp(subject: Subject) -> EngineFit:
    findings = _gguf(subject)
    folder = quote(str(subject.folder))
    how = [f"python convert_hf_to_gguf.py {folder} --outfile model.gguf"]
    if subject.adapter is not None:
        how = [
            f"python convert_hf_to_gguf.py {quote(str(subject.base))} --outfile base.gguf",
            f"python convert_lora_to_gguf.py {folder} --base {quote(str(subject.base))} --outfile adapter.gguf",
            "llama-server -m base.gguf --lora adapter.gguf",
        ]
    else:
        how.append("llama-server -m model.gguf")
    return _fit("llama.cpp", subject, findings, how)


def _gguf(subject: Subject) -> list[Finding]:
    """What turning it into GGUF depends on."""
    name = subject.model.architecture
    known = SUPPORT.get(name)
    if known is None:
        first = _unknown("architecture", f"{name} is not in our table of llama.cpp (read {READ_ON}).")
    elif not known.llama_cpp:
        first = _no("architecture", f"llama.cpp's converter (read {READ_ON}) does not name {name}.")
    else:
        first = _likely("architecture", f"llama.cpp's converter (read {READ_ON}) names {name}.")
    found = [first, _named(subject), _rope(subject, "llama.cpp", "llama.cpp"), _head(subject), _weights(subject)]
    found.append(_tokenizer(subject))
    return found + (_gguf_adapter(subject.adapter, subject.model.tied_embeddings) if subject.adapter else [])


def _gguf_adapter(adapter: Adapter, tied: bool) -> list[Finding]:
    found = [_likely("rank", f"llama.cpp names no limit for ranks; this one is {adapter.rank}.")]
    if adapter.dora:
        found.append(_no("DoRA", f"The converter refuses DoRA's magnitudes. {_MERGE}"))
    if adapter.rslora:
        found.append(_no("rsLoRA", f"The converter keeps alpha / rank, which scales rsLoRA wrongly. {_MERGE}"))
    if adapter.mixed:
        found.append(_no("patterns", f"The converter keeps one scale for all modules. {_MERGE}"))
    if adapter.whole_modules or adapter.bias != "none":
        found.append(_no("modules_to_save", f"The converter takes low-rank pairs only. {_MERGE}"))
    if adapter.on_vocabulary:
        sentence = "It changes embedding or head"
        if tied:
            found.append(_no("vocabulary", f"{sentence}, which are one in this model. {_MERGE}"))
        else:
            found.append(_unknown("vocabulary", f"{sentence}; the converter takes that for some models only."))
    return found


def _ollama(subject: Subject) -> EngineFit:
    name = subject.model.architecture
    known = SUPPORT.get(name)
    if subject.adapter is not None:
        sentence = "Ollama imported adapters of Llama, Mistral and Gemma only, and its newest pages name none."
        findings = [_unknown("adapters", f"{sentence} {_MERGE}"), *_gguf(subject)]
        return _fit("ollama", subject, findings, [_merge_command(subject)])
    template = (
        _likely("chat template", "The model's is Jinja; see that Ollama's own TEMPLATE says the same.")
        if subject.has_chat_template
        else _likely("chat template", "It has none: prompts go in as they are, unless the Modelfile has a TEMPLATE.")
    )
    if known is not None and known.ollama:
        first = _likely("architecture", f"Ollama's importer (read {READ_ON}) names {name}.")
        findings = [first, _named(subject), _weights(subject), _tokenizer(subject), template]
        return _fit("ollama", subject, findings, _modelfile(str(subject.folder.resolve())))
    findings = [_likely("import", f"Ollama does not import {name} itself; it runs what llama.cpp converted.")]
    how = [f"python convert_hf_to_gguf.py {quote(str(subject.folder))} --outfile model.gguf"]
    return _fit("ollama", subject, [*findings, *_gguf(subject), template], [*how, *_modelfile("./model.gguf")])


def _modelfile(source: str) -> list[str]:
    """`source` must look like a path: a bare name would be looked up in Ollama's library."""
    return [f"echo {quote(f'FROM {source}')} > Modelfile", "ollama create tuned -f Modelfile"]


# ---- of the model itself ------------------------------------------------------------------------------------------


def _named(subject: Subject) -> Finding:
    if subject.config.get("architectures"):
        return _likely("config", "config.json names the architecture.")
    return _no("config", "config.json has no 'architectures', by which servers choose. Add it.")


def _rope(subject: Subject, engine: str, name: str) -> Finding:
    kinds = rope_types(subject.config)
    strange = sorted(kinds - ROPE[engine])
    if strange:
        return _unknown("positions", f"Whether {name} scales positions by {strange[0]!r} is not known.")
    scaled = sorted(kinds - {"default"})
    return _likely("positions", f"They are scaled by {scaled[0]!r}, which it knows." if scaled else "Not scaled.")


def rope_types(config: Mapping[str, Any]) -> set[str]:
    """The scalings of positions that a config names, in the old keys and in the new ones."""
    found: set[str] = set()
    for key in ("rope_scaling", "rope_parameters"):
        value = config.get(key)
        if not isinstance(value, dict):
            continue
        fields = cast("dict[str, Any]", value)
        nested = [cast("dict[str, Any]", each) for each in fields.values() if isinstance(each, dict)]
        found |= {str(each.get("rope_type") or each.get("type") or "default") for each in (nested or [fields])}
    return found or {"default"}


def _head(subject: Subject) -> Finding:
    tied = subject.model.tied_embeddings
    return _likely("head", "It is the embedding, stored once." if tied else "It has weights of its own.")


def _weights(subject: Subject) -> Finding:
    """`read_subject` refuses everything else."""
    files = sum(name.endswith(".safetensors") for name in subject.model.files)
    return _likely("weights", f"safetensors in {files} file{'s' * (files != 1)}, not quantised.")


def _vocabulary(subject: Subject) -> Finding:
    size = subject.model.vocab_size
    return _likely("tokenizer", f"tokenizer.json is there and stays within the model's {size} tokens.")


def _tokenizer(subject: Subject) -> Finding:
    """GGUF holds the tokenizer too, so the converter must know its kind."""
    folder, name = subject.model.folder, subject.model.architecture
    if (folder / "tokenizer.model").is_file():
        return _likely("tokenizer", "tokenizer.model is there.")
    if name in NEEDS_SENTENCEPIECE:
        sentence = f"llama.cpp reads {name}'s tokenizer from tokenizer.model, which is missing. Copy it from the base."
        return _no("tokenizer", sentence)
    kind, size, falls_back = _tokenizer_facts(folder)
    if kind == "BPE" and falls_back:
        return _likely("tokenizer", "It is BPE that falls back to bytes, as Llama 2's.")
    if kind == "BPE" and size in KNOWN_BPE:
        return _likely("tokenizer", f"Its {size} tokens are as many as those of {KNOWN_BPE[size]}, which it knows.")
    sentence = "The converter knows tokenizers one by one, and refuses others: it will tell."
    return _unknown("tokenizer", f"{kind or 'This kind'} of {size} tokens. {sentence}")


def _tokenizer_facts(folder: Path) -> tuple[str, int, bool]:
    """Kind, tokens without the added ones, and whether unknown letters become bytes."""
    # `inspect_model` has checked its size and shape
    content: Any = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    model: Any = content.get("model") or {}
    return str(model.get("type") or ""), len(model.get("vocab") or ()), bool(model.get("byte_fallback"))
