"""The model card: README.md with YAML front matter, as model hubs read it.

Owns the text only; the facts come from the order. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from shardwork.models.hub import PREFIX, hub_name
from shardwork.recipes.orders import Method, PublishOrder


def write_card(path: Path, order: PublishOrder, *, parameters: int, found: Sequence[tuple[str, str]] = ()) -> None:
    """Writes the card; equal orders and findings give equal bytes. `found` was measured on the model itself."""
    front = yaml.safe_dump(front_matter(order), sort_keys=False, allow_unicode=True, width=1000)
    facts = [
        ("job", order.job_id),
        ("stage", order.stage),
        ("trained parameters", f"{parameters:,}"),
        *order.card,
        *found,
    ]
    table = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in facts)
    path.write_text(
        f"---\n{front}---\n\n# {_cell(order.job_name)}\n\n{_summary(order)}\n\n"
        f"| fact | value |\n| --- | --- |\n{table}\n\n## Use\n\n{_usage(order)}"
    )


def front_matter(order: PublishOrder) -> dict[str, Any]:
    """What a hub indexes, and the job's facts under `shardwork`."""
    lora = order.tuning.method is Method.LORA
    task = "text-classification" if order.tuning.head == "score" else "text-generation"
    front: dict[str, Any] = {"library_name": "transformers" if is_whole(order) else "peft", "pipeline_tag": task}
    if not order.from_scratch:
        front["base_model"] = hub_name(order.base_id)[0]
    front["tags"] = ["shardwork", order.recipe, *(["lora"] if lora else [])]
    front["shardwork"] = {"job": order.job_id, "stage": order.stage, **dict(order.card)}
    return front


def is_whole(order: PublishOrder) -> bool:
    """Whether what is published stands alone; else it is an adapter. A reward model always does."""
    return order.tuning.method is not Method.LORA or order.merged or order.tuning.head == "score"


def _summary(order: PublishOrder) -> str:
    if order.from_scratch:
        return "A language model trained from scratch by Shardwork."
    how = {
        Method.LORA: "A LoRA adapter merged into" if is_whole(order) else "A LoRA adapter for",
        Method.FULL: "All weights tuned from",
        Method.PARTIAL: f"The last {order.tuning.last_layers} layers tuned from",
    }
    base = _cell(order.base_id.removeprefix(PREFIX))
    what = f"{how[order.tuning.method]} `{base}`, made with Shardwork (recipe `{order.recipe}`)."
    scores = " A reward model: its one logit is the score of a prompt with an answer."
    return what + scores if order.tuning.head == "score" else what


def _usage(order: PublishOrder) -> str:
    kind = "AutoModelForSequenceClassification" if order.tuning.head == "score" else "AutoModelForCausalLM"
    lines = [f"from transformers import {kind}, AutoTokenizer"]
    if is_whole(order):
        lines += [
            "",
            f'model = {kind}.from_pretrained("path/to/this/folder")',
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
        ]
    else:
        lines += [
            "from peft import PeftModel",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({_loading(order.base_id)})",
            'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        ]
    return "```python\n" + "\n".join(lines) + "\n```\n"


def _cell(text: str) -> str:
    """Text that cannot break out of a table cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")


def _loading(base_id: str) -> str:
    """Arguments that load the base: a hub's model at the commit that was trained on. The name of somebody's folder is
    no address: transformers would look it up on a hub, and a folder called gpt2 would become another model."""
    name, revision = hub_name(base_id)
    return repr(f"path/to/{name}") if revision is None else f"{name!r}, revision={revision!r}"
