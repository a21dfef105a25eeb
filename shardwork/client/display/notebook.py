"""Jobs, plans and balances as a notebook shows them: small pieces of HTML, and a job that redraws itself in place.

Everything from elsewhere is escaped. Colours are the notebook's own, so that light and dark both read well. IPython is
never imported here: a kernel has done so.
"""

from __future__ import annotations

import html
import sys
from typing import TYPE_CHECKING, Any

from ...money import show
from ..results import Balance, JobStatus
from ..waiting import position, progress_of
from . import figures
from .curve import curve
from .show import Picture, page_of, text_of

if TYPE_CHECKING:
    from ..plan import Plan

_STYLE = (
    "<style>.shardwork svg.curve{max-width:32em}.shardwork text{fill:currentColor;font:11px sans-serif}"
    ".shardwork .grid{stroke:currentColor;opacity:.15}.shardwork polyline{fill:none;stroke-width:2}"
    ".shardwork polyline.train{stroke:#b08a2a;stroke-dasharray:5 4}.shardwork polyline.held-out{stroke:#4a8fd6}"
    ".shardwork circle.train{fill:#b08a2a}.shardwork circle.held-out{fill:#4a8fd6}</style>"
)


def job_html(job: JobStatus) -> str:
    """Name, state, where it is, its losses and its money."""
    rows = [(stage.name, f"{stage.recipe}, {stage.state}: {position(stage)}") for stage in job.stages]
    rows.append(("money", f"{show(job.spent_msat)} spent of {show(job.budget_msat)}"))
    rows += [(each.name, f"{each.kind}, {figures.size(each.bytes)}") for each in job.outputs]
    if job.why is not None and job.state != "succeeded":
        rows.append(("why", " ".join(part for part in (job.why.sentence, job.why.next_step) if part)))
    pictures = "".join(curve(stage) for stage in job.stages)
    bar = "" if job.is_final else page_of(progress_of(job))
    return _card(f"{job.name} · {job.id} · {job.state}", rows, bar + pictures)


def plan_html(plan: Plan) -> str:
    """What it costs, what it is held against, how long it takes, and what to mind."""
    quote = plan.quote
    rows = [
        ("stages", ", ".join(f"{each.stage.name}: {each.facts.rows:,} rows" for each in plan.measured.stages)),
        ("shards", f"{quote.shards:,} in {quote.rounds:,} rounds"),
        ("estimate", figures.span(show(quote.estimate_low_msat), show(quote.estimate_high_msat))),
        ("reserve", f"{show(quote.reserve_msat)}, the cap"),
        ("budget", show(plan.measured.budget_msat)),
        ("wallet", show(plan.available_msat)),
        ("time", figures.span(figures.duration(quote.seconds_low), figures.duration(quote.seconds_high))),
        *(("mind", f"{each.sentence} {each.next_step}") for each in plan.warnings),
    ]
    return _card(f"{plan.spec.name} · plan", rows)


def balance_html(balance: Balance) -> str:
    rows = [("available", show(balance.available_msat)), ("held", show(balance.held_msat))]
    return _card("simulated sats" if balance.is_simulated else "sats", rows)


def _card(title: str, rows: list[tuple[str, str]], below: str = "") -> str:
    cells = "".join(
        f"<tr><td style='opacity:.7;text-align:left'>{html.escape(name)}</td>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<div class='shardwork'>{_STYLE}<strong>{html.escape(title)}</strong>{below}<table>{cells}</table></div>"


class JobArea:
    """One output area that shows a job as it is now."""

    def __init__(self) -> None:
        self._area: Any = None

    def __call__(self, job: JobStatus) -> None:
        now = progress_of(job)
        picture = Picture(job_html(job), f"{now.label}: {text_of(now)}")
        if self._area is None:
            module: Any = sys.modules["IPython"]
            self._area = module.display.display(picture, display_id=True)
        else:
            self._area.update(picture)
