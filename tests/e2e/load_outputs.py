"""Loads what jobs made with plain transformers and peft, and says in JSON what it found. Run by `test_methods`.

usage: load_outputs.py BASE OUTPUT...
"""

# pyright: basic, reportPrivateImportUsage=false, reportAttributeAccessIssue=false
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTION = [{"role": "user", "content": "Which is longer, Lena or Po?"}]


def main(base_folder: str, *outputs: str) -> None:
    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(base_folder)
    inputs = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    base: Any = AutoModelForCausalLM.from_pretrained(base_folder)
    with torch.no_grad():
        before = base(**inputs).logits
    found: dict[str, Any] = {}
    for output in outputs:
        is_adapter = (Path(output) / "adapter_config.json").is_file()
        own: Any = None if is_adapter else AutoTokenizer.from_pretrained(output)
        model: Any = AutoModelForCausalLM.from_pretrained(base_folder if is_adapter else output)
        whole: Any = PeftModel.from_pretrained(model, output) if is_adapter else model
        with torch.no_grad():
            after = whole(**inputs).logits
        made = whole.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=0)
        found[output] = {
            "adapter": is_adapter,
            "finite": bool(torch.isfinite(after).all()),
            "changed": float((after - before).abs().max()),
            "same_tokens": is_adapter or own.encode("The Volga") == tokenizer.encode("The Volga"),
            "new_tokens": int(made.shape[1] - inputs["input_ids"].shape[1]),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
