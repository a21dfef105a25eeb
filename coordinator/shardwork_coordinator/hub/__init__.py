"""Hub: models of a hub that the operator allows, copied once at a pinned commit and served as artifacts.

rules     what the operator allows: which hub, which models, which hosts, how large
source    the hub over HTTP: resolve a revision, read pieces, fetch files that resume
offered   what the operator put into the store for everybody
mirror    copies as artifacts, one at a time each, with rows that say what they are
"""

from __future__ import annotations

from .mirror import HubMirror
from .rules import HubRules
from .source import HubSource

__all__ = ["HubMirror", "HubRules", "HubSource"]
