"""What the agent says again and again: why it takes no offer, and what it waits for.

Owns the words only. The agent chooses among them; the app says one while it joins.
"""

from __future__ import annotations

from shardwork.why import Why

from .limits.guard import CODES as LIMITED

PAUSED = Why(code="worker.paused", sentence="The worker was paused by its owner.", next_step="shardwork-worker resume")
DRAINING = Why(code="worker.draining", sentence="The worker completes its shard and then takes no more.")
FINISHED = Why(
    code="worker.finished", sentence="The worker finished as its owner asked.", next_step="shardwork-worker resume"
)
STOPPED = Why(code="worker.stopping", sentence="The worker was stopped by its owner.")
BUSY = Why(code="worker.busy", sentence="The worker has another lease in hand.")
REPLACED = Why(
    code="worker.replaced",
    sentence="Another worker with this key attached and took over what this one had in hand.",
    next_step="Give each worker a SHARDWORK_HOME of its own. To take over again: shardwork-worker resume",
)
UNEXPECTED = Why(
    code="worker.unexpected",
    sentence="The worker hit an error that it does not know.",
    next_step="Its owner finds the traceback where it runs.",
)

JOINING = Why(
    code="worker.joining", sentence="The coordinator has not welcomed this worker yet.", next_step="Wait a moment."
)
UNHEARD = Why(
    code="worker.unheard",
    sentence="It waits for an offer; the coordinator has not said yet why there is none.",
    next_step="Ask again in a minute: idle workers are told.",
)
SETTINGS_CHANGED = Why(
    code="worker.settings_changed",
    sentence="worker.toml was changed after this worker started, and it goes on with what it has read.",
    next_step="Start it again: shardwork-worker finish, then stop, then start.",
)
DONATES = Why(
    code="worker.donates",
    sentence="This worker gives its work, so nothing is paid for it.",
    next_step="Start it without --donate, and without donate in worker.toml, to be paid.",
)
#: reasons to rest that are its owner's own word
OWNERS = (*(one.code for one in (PAUSED, DRAINING, FINISHED, STOPPED)), LIMITED)
