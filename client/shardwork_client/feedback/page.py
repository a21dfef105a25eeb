"""What `feedback` shows: ratings, win rates, agreement, bias and the sides of a blend. Names are strangers' words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from shardwork.client.display.figures import duration
from shardwork.money import show as sats

from ..render import clean, pairs, table

Found = Mapping[str, Any]
#: of annotators, the best and the worst are what is looked for
MOST_ANNOTATORS = 20


def ratings_page(found: Found) -> RenderableType:
    if not found["ratings"]:
        return Text("No votes.")
    rated = table("model", "rating", "95 %", "won", "votes", right=("rating", "won", "votes"))
    for one in found["ratings"]:
        interval = f"{one['low']:.0f} to {one['high']:.0f}"
        won = f"{one['won'] / one['votes']:.0%}" if one["votes"] else "-"
        rated.add_row(clean(one["model"]), f"{one['elo']:.0f}", interval, won, f"{one['votes']:,}")
    rates = table("model", "against", "wins", "95 %", "w/l/t", right=("wins",))
    for one in found["win_rates"]:
        counts = f"{one['wins']}/{one['losses']}/{one['ties']}"
        interval = f"{one['low']:.0%} to {one['high']:.0%}"
        rates.add_row(clean(one["model"]), clean(one["against"]), f"{one['rate']:.0%}", interval, counts)
    return Group(rated, Text(""), rates) if found["win_rates"] else rated


def report_page(found: Found) -> RenderableType:
    parts: list[RenderableType] = [pairs(_head(found)), Text("")]
    sides = table("side", "pairs", "preferences", "votes", "cost", "took", "a vote", "quality", "95 %")
    for one in found["sides"]:
        pace = "-" if one["ms_per_vote"] is None else f"{one['ms_per_vote'] / 1000:.1f} s"
        quality, interval = _share(one["quality"])
        counts = (f"{one[name]:,}" for name in ("pairs", "preferences", "votes"))
        cost = "-" if one["cost_msat"] is None else sats(one["cost_msat"])
        took = "-" if one["took_ms"] is None else duration(one["took_ms"] / 1000)
        sides.add_row(one["name"], *counts, cost, took, pace, quality, interval)
    parts += [sides, Text("")]
    if found["annotators"]:
        people = table("annotator", "right", "95 %", "votes", right=("right", "votes"))
        for one in found["annotators"][:MOST_ANNOTATORS]:
            people.add_row(clean(one["annotator"])[:24], *_share(one["accuracy"]), f"{one['votes']:,}")
        parts += [people, Text("")]
    return Group(*parts, ratings_page(found))


def _head(found: Found) -> list[tuple[str, RenderableType]]:
    agreement = found["agreement"]
    alpha = agreement["people_alpha"]["value"] if agreement["people_alpha"] else None
    rows: list[tuple[str, RenderableType]] = [
        ("votes", f"{found['votes']:,} on {found['pairs']:,} pairs; {found['preferences']:,} preferences"),
        ("people agree", "-" if alpha is None else f"Krippendorff's alpha {alpha:.2f}"),
        ("judge agrees", " ".join(_share(agreement["judge_with_people"]))),
        ("judge flips", " ".join(_share(agreement["flips"]))),
    ]
    for who, one in found["bias"].items():
        if one is not None:
            first, interval = _share(one["first"])
            slope = f"each doubling of length: {one['length']['value']:+.2f} log-odds"
            rows.append((f"bias of {who}", f"first shown wins {first} {interval}; {slope}"))
    if found["unknown"]:
        rows.append(("not compared", f"{found['unknown']:,} votes whose answers are not known, or are equal"))
    return rows


def _share(one: Mapping[str, float] | None) -> tuple[str, str]:
    if one is None or not one["of"]:
        return "-", ""
    return f"{one['value']:.0%}", f"({one['low']:.0%} to {one['high']:.0%})"


def progress_page(stages: Sequence[Found]) -> RenderableType:
    parts: list[RenderableType] = []
    for one in stages:
        figures = one["figures"]
        head = Text(f"{one['stage']}  {one['state']}", style="bold")
        parts += [head, pairs(_progress(figures)) if figures else Text("Its items are not counted yet."), Text("")]
    return Group(*parts[:-1])


def _progress(figures: Found) -> list[tuple[str, RenderableType]]:
    votes, people, alpha = figures["votes"], figures["annotators"], figures["agreement_alpha"]
    first = figures["bias"]["shown_first"]
    return [
        ("items", f"{figures['items_done']:,} of {figures['items']:,}, each by {figures['overlap']} people"),
        ("votes", ", ".join(f"{count:,} {state}" for state, count in votes.items() if count) or "none yet"),
        ("people", ", ".join(f"{count:,} {state}" for state, count in people.items() if count) or "nobody yet"),
        ("here now", f"{figures['here']:,}"),
        ("paid", f"{sats(figures['paid_msat'])}, held {sats(figures['held_msat'])}"),
        ("agreement", "-" if alpha is None else f"Krippendorff's alpha {alpha:.2f}"),
        ("first shown", "-" if first is None else f"wins {first:.0%}"),
    ]
