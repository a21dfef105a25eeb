"""How an output is loaded: lines of Python for people to copy. Used by the report and after a download."""

from __future__ import annotations


def loading(kind: str, path: str, *, base: str = "the base model's folder") -> list[str]:
    """Python that loads an output of this kind from the folder `path`; empty where nothing general can be said."""
    if kind == "model":
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            f"model = AutoModelForCausalLM.from_pretrained({path!r})",
            f"tokenizer = AutoTokenizer.from_pretrained({path!r})",
        ]
    if kind == "adapter":
        return [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            f"base = AutoModelForCausalLM.from_pretrained({base!r})  # the folder of the model you tuned",
            f"model = PeftModel.from_pretrained(base, {path!r})",
            f"tokenizer = AutoTokenizer.from_pretrained({base!r})  # an adapter has none of its own",
        ]
    if kind == "rows":
        return ["from datasets import load_dataset", f"rows = load_dataset('json', data_files={path + '/*.jsonl'!r})"]
    return []
