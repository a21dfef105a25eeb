"""The column of a rich bar that says how fast bytes go; apart from `display`, because it needs rich to be defined."""

from __future__ import annotations

from rich.progress import ProgressColumn, Task
from rich.text import Text

from . import figures


class RateColumn(ProgressColumn):
    """ "1.2 MB/s"; empty for what is counted in something else than bytes."""

    def render(self, task: Task) -> Text:
        if task.fields.get("unit") != "bytes" or not task.speed:
            return Text("")
        return Text(f"{figures.size(int(task.speed))}/s")
