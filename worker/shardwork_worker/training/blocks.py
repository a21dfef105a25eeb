# pyright: standard
"""Where a model's transformer blocks are, for tuning in part and for adapters on chosen layers.

Found by shape, because every architecture names them its own way. Called by `model` and `adapter`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from shardwork.errors import InvalidInput


def blocks_of(model: Any) -> tuple[nn.ModuleList, list[nn.Module]]:
    """The transformer blocks, and the norms that follow them in the same module (final norm; none is possible).

    Found by shape, not by name: the shallowest ModuleList as long as the config's number of layers. A norm that stands
    before them is the final one if it is called so (OPT), and else the embedding's (BLOOM).
    """
    count = model.config.get_text_config().num_hidden_layers
    found = [
        (name.count("."), parent, child)
        for name, parent in model.named_modules()
        for child in parent.children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if not found:
        sentence = "This architecture's transformer blocks were not found, so it cannot be tuned in part."
        step = "Use params.method: lora or full."
        raise InvalidInput("model.no_blocks", sentence, next_step=step, model_type=model.config.model_type)
    _, parent, blocks = min(found, key=lambda entry: entry[0])
    siblings = list(parent.named_children())
    place = next(number for number, (_, module) in enumerate(siblings) if module is blocks)
    norms = [
        module
        for number, (name, module) in enumerate(siblings)
        if "norm" in type(module).__name__.lower() and (number > place or name.startswith("final"))
    ]
    return blocks, norms
