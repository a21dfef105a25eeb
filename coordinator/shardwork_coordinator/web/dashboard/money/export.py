"""Export: rows as CSV, sent as they are read, and never more than a spreadsheet takes.

Cells come from strangers, too: one that a spreadsheet would compute is made plain text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from starlette.responses import StreamingResponse

#: newest first; a spreadsheet has a million rows
MOST_ROWS = 200_000
#: a cell that begins so is taken for a formula
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_response(
    name: str, columns: Sequence[str], pages: AsyncIterator[Sequence[Sequence[object]]]
) -> StreamingResponse:
    """A file to be saved."""
    headers = {"Content-Disposition": f'attachment; filename="shardwork-{name}.csv"'}
    return StreamingResponse(_lines(columns, pages), media_type="text/csv; charset=utf-8", headers=headers)


async def _lines(columns: Sequence[str], pages: AsyncIterator[Sequence[Sequence[object]]]) -> AsyncGenerator[str, None]:
    yield written([columns])
    left = MOST_ROWS
    async for page in pages:
        yield written(page[:left])
        left -= len(page)
        if left <= 0:
            return


def written(rows: Sequence[Sequence[object]]) -> str:
    """Lines as RFC 4180 has them."""
    out = io.StringIO()
    csv.writer(out).writerows([[plain(cell) for cell in row] for row in rows])
    return out.getvalue()


def plain(cell: object) -> object:
    """A text that is not computed; numbers stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
