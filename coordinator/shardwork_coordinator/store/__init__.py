"""Store: the coordinator's rows behind one Protocol, in SQL or in memory.

`base` is the Protocol; `memory` and `sql` follow it. `rules` and `columns` are what both share, `tables` and
`migrations` are SQL's shape, `writer` is the one thread that commits. Decides nothing about jobs or money.
"""

from __future__ import annotations

from .base import Store, Transaction
from .memory import MemoryStore
from .sql import SqlStore

__all__ = ["MemoryStore", "SqlStore", "Store", "Transaction"]
