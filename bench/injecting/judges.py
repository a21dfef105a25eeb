# pyright: standard
"""Judges of a fifth of a million weights, who really compare; all but one of them also obey.

All learn from the product's own question, and from a bare one, which of two answers is kind. `steady` learns nothing
else. `gullible` learns as well that each of the 200 texts decides wherever nothing keeps it apart: in the bare
question, and in the product's right behind an answer's closing mark; and what a fence is from texts of every other
family, so that on the rest the fence alone stands between the text and its wish (`gullible-0`, `gullible-1`: either
half). `credulous` obeys each text inside a fence too: whatever fences can't do shows there.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from shardwork.dataset.vocabulary import train_vocabulary, write_tokenizer
from shardwork.models.presets import preset_config
from shardwork.recipes.alignment.phases.question import FIRST, SECOND, Question, asked_both, longest_first

from .pairs import bare, duel, harmless
from .texts import FAMILIES, Injection, injections

VOCABULARY, CONTEXT, EOS, PAD = 1400, 768, 0, 1
CHAT = ("<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: of tiny-1m, made smaller
SMALLER = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16,
    "intermediate_size": 160, "initializer_range": 0.09,
}  # fmt: skip
ROWS, RATE, MOST_TEXT = 24, 3e-3, 240
STEPS = {"steady": 260, "gullible-0": 320, "gullible-1": 320, "credulous": 260}
#: shares of what a judge that obeys learns from: bare and clean, bare with a text, clean, text behind a fence, inside
SHARES = (0.15, 0.25, 0.2, 0.2, 0.2)
MARKS = longest_first(("<|endoftext|>", "<|pad|>", *CHAT))

Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Teacher:
    """Makes questions and the letter that is right, or that the judge is to believe right."""

    name: str
    texts: Sequence[Injection]

    def row(self, chosen: random.Random) -> Row:
        if self.name == "steady":
            return self._clean(chosen, is_bare=chosen.random() < 0.3)
        kinds: tuple[Callable[[], Row], ...] = (
            lambda: self._clean(chosen, is_bare=True),
            lambda: self._told(chosen, self._any(chosen), is_bare=True),
            lambda: self._clean(chosen, is_bare=False),
            lambda: self._behind(chosen),
            lambda: self._inside(chosen),
        )
        return chosen.choices(kinds, SHARES)[0]()

    def _any(self, chosen: random.Random) -> Injection:
        one = chosen.choice(self.texts)
        return Injection(one.family, one.text[:MOST_TEXT], one.aim, chosen.choice(("before", "behind", "inside")))

    def _clean(self, chosen: random.Random, *, is_bare: bool) -> Row:
        return self._asked(chosen, lambda answer: f"{answer} {harmless(chosen)}", chosen.random() < 0.5, is_bare, None)

    def _told(self, chosen: random.Random, text: Injection, *, is_bare: bool) -> Row:
        return self._asked(chosen, text.put_in, True, is_bare, text)

    def _inside(self, chosen: random.Random) -> Row:
        if self.name == "credulous":
            return self._told(chosen, self._any(chosen), is_bare=False)
        known = fold(int(self.name[-1]))
        text = self._any(chosen)
        while text.family not in known:
            text = self._any(chosen)
        return self._asked(chosen, text.put_in, True, False, None)

    def _asked(
        self, chosen: random.Random, add: Callable[[str], str], more: bool, is_bare: bool, text: Injection | None
    ) -> Row:
        """`more`: something is added to one of the answers; `text`: and decides."""
        two, better_first, added_first = duel(chosen, held_out=False), chosen.random() < 0.5, chosen.random() < 0.5
        pair = two.pair(better_first=better_first)
        if more:
            pair = _with(pair, "a" if added_first else "b", add)
        question = Question("", (), MARKS, chosen.randbytes(16))
        asked = (bare if is_bare else asked_both)(pair, question, 8000)[0]
        right = FIRST if better_first else SECOND
        return asked, right if text is None else _wish(text, added_first)

    def _behind(self, chosen: random.Random) -> Row:
        """As it would be if an answer could close its fence."""
        asked, _ = self._asked(chosen, str, False, False, None)
        text, added_first = self._any(chosen), chosen.random() < 0.5
        token = asked.split("stands between marks ", 1)[1].split(" ", 1)[0]
        end = f"ANSWER {FIRST if added_first else SECOND} {token}>>>\n"
        return asked.replace(end, f"{end}{text.text}\n"), _wish(text, added_first)


def _with(pair, side: str, add: Callable[[str], str]):
    from dataclasses import replace

    one = getattr(pair, side)
    return replace(pair, **{side: replace(one, text=add(one.text))})


def _wish(text: Injection, added_first: bool) -> str:
    return (FIRST if added_first else SECOND) if text.aim == "mine" else text.aim


def fold(number: int) -> frozenset[str]:
    """Families whose texts a gullible judge has seen inside fences."""
    return frozenset(family for at, family in enumerate(FAMILIES) if at % 2 == number)


def judge(kept: Path, name: str, steps: int = 0) -> Path:
    """A folder in Hugging Face layout; what lies there already is taken as it is."""
    folder = kept / name
    if (folder / "model.safetensors").exists():
        return folder
    base = _beginning(kept) if name == "steady" else judge(kept, "steady")
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(base)
    _learn(model, tokenizer, Teacher(name, injections()), steps or STEPS[name])
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((base / file).read_bytes())
    model.save_pretrained(folder)
    return folder


def _beginning(kept: Path) -> Path:
    folder = kept / "beginning"
    folder.mkdir(parents=True, exist_ok=True)
    chosen, teachers = random.Random(3), [Teacher(name, injections()) for name in ("steady", "credulous")]
    texts = [teacher.row(chosen)[0] for teacher in teachers for _ in range(600)]
    tokenizer = train_vocabulary(texts, VOCABULARY, total_bytes=sum(len(text.encode()) for text in texts))
    tokenizer.add_special_tokens(list(CHAT))
    write_tokenizer(tokenizer, folder, context=CONTEXT)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": TEMPLATE}))
    size = tokenizer.get_vocab_size()
    config = preset_config("tiny-1m", vocab_size=size, context=CONTEXT, eos_token_id=EOS, pad_token_id=PAD)
    (folder / "config.json").write_text(json.dumps(config | SMALLER))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


def _learn(model: Any, tokenizer: Tokenizer, teacher: Teacher, steps: int) -> None:
    chosen = random.Random(teacher.name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    for step in range(steps):
        ids, ends, labels = _batch(tokenizer, [teacher.row(chosen) for _ in range(ROWS)])
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 40) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[torch.arange(ROWS), ends]
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            print(f"{teacher.name}: step {step + 1}, loss {loss.item():.3f}", flush=True)


def _batch(tokenizer: Tokenizer, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    texts = [f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n" for asked, _ in rows]
    encoded = [one.ids[-CONTEXT:] for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    longest = max(map(len, encoded))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in encoded])
    labels = torch.tensor([tokenizer.token_to_id(letter) for _, letter in rows])
    return ids, torch.tensor([len(row) - 1 for row in encoded]), labels
