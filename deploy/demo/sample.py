"""Loads a base folder and an adapter folder with plain transformers and peft, and samples. Called by `run`.

usage: sample.py BASE ADAPTER
"""

# pyright: basic, reportPrivateImportUsage=false, reportAttributeAccessIssue=false
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTION = [{"role": "user", "content": "What does os.path.join do?"}]


def main(base_folder: str, adapter_folder: str) -> None:
    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(base_folder)
    base: Any = AutoModelForCausalLM.from_pretrained(base_folder)
    tuned: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), adapter_folder)
    # the base has no chat template of its own: the adapter brings the one it was tuned with
    tokenizer.chat_template = (Path(adapter_folder) / "chat_template.jinja").read_text()
    inputs: Any = tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    for name, model in (("base", base), ("tuned", tuned)):
        made = model.generate(**inputs, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.pad_token_id or 0)
        answer = tokenizer.decode(made[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        print(f"{name:>6}: {answer.strip()!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
