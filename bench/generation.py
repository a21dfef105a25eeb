# pyright: standard
"""Answers a second: our generation against transformers' own, what proofs cost, and what an audit costs.

The same random llama, prompts, number of tokens and rows on one thread; sampling on, nothing ends early. Turns go
round: plain `model.generate`, ours, an audit, ours without proofs (a token drawn by torch.multinomial, nothing else
computed or kept), plain again and so on; figures are medians of the turns' ratios, of seconds of the processor, so that
a busy machine bothers them little.

    python bench/generation.py --turns 7
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shardwork_worker.child import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from shardwork.recipes.alignment.answers import write_prompts
from shardwork.recipes.alignment.auditing import LEAST_ROWS, ONE_OF
from shardwork.recipes.alignment.orders import AuditOrder, GenerateOrder, Sampling
from shardwork_worker.training.context import ShardContext
from shardwork_worker.training.generation import generate as generating_module
from shardwork_worker.training.trainer import TorchTrainer

#: what is swapped to measure without proofs
generating: Any = generating_module
RESULT = Path(__file__).resolve().parent / "results" / "generation.json"
GOALS = {"throughput": 0.90, "proofs": 0.05}
SEED = bytes(range(32))
PROMPTS, ANSWERS, PROMPT_TOKENS, NEW_TOKENS = 8, 2, 32, 48
ROWS = PROMPTS * ANSWERS


def model_folder(folder: Path, vocabulary: int) -> Path:
    """About nine million parameters and the vocabulary's."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=5,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {f"w{number}": number for number in range(vocabulary)}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return folder


class Bench:
    """One model and its prompts, answered in several ways; each returns the processor seconds that it took."""

    def __init__(self, root: Path, vocabulary: int, sampling: Sampling) -> None:
        self.root, self.base, self.prompts = root, model_folder(root / "base", vocabulary), root / "prompts"
        self.trainer = TorchTrainer("cpu")
        torch.set_num_threads(1)
        draw = np.random.default_rng(1)
        # of one length, so that transformers needs no padding either; ours reads each once for both its answers
        self.rows = draw.integers(2, vocabulary, (PROMPTS, PROMPT_TOKENS))
        self.prompts.mkdir()
        rows = [{"id": str(number)} for number in range(PROMPTS)]
        write_prompts(self.prompts, self.rows.tolist(), rows, pad_token_id=0, end_tokens=[])
        self.order = GenerateOrder(
            tuning=None,
            first_prompt=0,
            prompts=PROMPTS,
            answers=ANSWERS,
            sampling=sampling,
            max_length=PROMPT_TOKENS,
            batch_size=ROWS,
        )
        self.model: Any = LlamaForCausalLM.from_pretrained(self.base).eval()
        self.turn = 0
        self.answers = root

    def plain(self) -> float:
        ids = torch.from_numpy(self.rows).repeat_interleave(ANSWERS, dim=0)
        sampling = self.order.sampling
        begin = time.process_time()
        with torch.inference_mode():
            made = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=0,
                max_new_tokens=NEW_TOKENS,
                pad_token_id=0,
            )
        seconds = time.process_time() - begin
        assert made.shape == (ROWS, PROMPT_TOKENS + NEW_TOKENS)
        return seconds

    def ours(self) -> float:
        begin = time.process_time()
        done = self.trainer.generate(self.order, self._context())
        seconds = time.process_time() - begin
        assert done.metrics["tokens"] == ROWS * NEW_TOKENS
        self.answers = done.outputs["answers"]
        return seconds

    def without_proofs(self) -> float:
        proving = generating.choose
        generating.choose = unproved
        try:
            return self.ours()
        finally:
            generating.choose = proving

    def audit(self) -> float:
        """Of the rows that a job would have checked, after answers that are proved."""
        few = max(LEAST_ROWS, -(-ROWS // ONE_OF))
        order = AuditOrder(of=self.order, seed=SEED.hex(), rows=tuple(range(0, ROWS, ROWS // few))[:few])
        begin = time.process_time()
        found = self.trainer.audit(order, self._context(answers=self.answers)).metrics
        seconds = time.process_time() - begin
        assert all(found[f"drawn.{row}"] == 1.0 for row in order.rows)
        return seconds

    def _context(self, **inputs: Path) -> ShardContext:
        self.turn += 1
        return ShardContext(
            inputs={"base": self.base, "prompts": self.prompts, **inputs},
            seed=SEED,
            output_dir=self.root / str(self.turn),
            trainer_of=lambda: self.trainer,
            tell=lambda fraction, loss: None,
        )


def unproved(logits: Tensor, draws: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """As whoever proves nothing would draw, top_p aside: softmax and torch's own generator."""
    shares = torch.softmax(logits / sampling.temperature, dim=-1)
    tokens = torch.multinomial(shares, 1).squeeze(1)
    return tokens, torch.zeros(len(tokens)), torch.zeros(len(tokens))


def measure(name: str, vocabulary: int, sampling: Sampling, turns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root), vocabulary, sampling)
        ways: dict[str, Callable[[], float]] = {"plain": bench.plain, "ours": bench.ours, "audit": bench.audit}
        if sampling.top_p == 1:
            ways["unproved"] = bench.without_proofs
        for way in ways.values():
            way()  # loads, warms
        rounds = [{way: run() for way, run in ways.items()} for _ in range(turns)]
    found: dict[str, Any] = {
        "case": name,
        "vocabulary": vocabulary,
        "sampling": sampling.model_dump(),
        "tokens_a_second": {
            way: round(ROWS * NEW_TOKENS / statistics.median(one[way] for one in rounds), 1)
            for way in ways
            if way != "audit"
        },
        "throughput": statistics.median(one["plain"] / one["ours"] for one in rounds),
        "audit_share": statistics.median(one["audit"] / one["ours"] for one in rounds),
    }
    if "unproved" in ways:
        found["proofs"] = statistics.median(one["ours"] / one["unproved"] - 1 for one in rounds)
    found["turns"] = [{way: round(seconds, 4) for way, seconds in one.items()} for one in rounds]
    print(json.dumps({key: value for key, value in found.items() if key != "turns"}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers a second, and what proofs cost.")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--cases", type=int, default=3, help="1: the small vocabulary alone, which takes a minute")
    given = parser.parse_args()
    long = {"max_new_tokens": NEW_TOKENS}
    asked = [
        ("small vocabulary", 2048, Sampling(**long)),
        ("large vocabulary", 32_000, Sampling(**long)),
        ("large vocabulary, top_p", 32_000, Sampling(temperature=0.7, top_p=0.9, **long)),
    ]
    cases: list[dict[str, Any]] = []
    for case in asked[: given.cases]:
        cases.append(measure(*case, given.turns))
        write(cases)  # a busy machine may not let it end


def write(cases: list[dict[str, Any]]) -> None:
    result = {
        "throughput": min(case["throughput"] for case in cases),
        "proofs": max(case["proofs"] for case in cases if "proofs" in case),
        "audit_share": max(case["audit_share"] for case in cases),
        "goals": GOALS,
        "rows": ROWS,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "threads": 1,
        "load": os.getloadavg()[0],
        "note": "throughput: ours over model.generate; proofs: log-probabilities and draws over torch.multinomial",
        "cases": cases,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
