"""Where the coordinator is killed: every failpoint of the source, under the scenario that passes it.

A failpoint that no scenario names fails the ordinary suite (`test_failpoints`); each scenario asserts that it was
killed at all of its own. Used by the chaos tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: commits and effects that a plain job passes
ON_THE_WAY = (
    # first, because content that is there already is not staged again, and later jobs make the same
    "rpc.artifacts:_stage_row",
    "rpc.jobs:submit_job",
    "effect:execute",
    "outbox:OutboxRunner._execute",
    "granting:Granting.grant",
    "effect:push",
    "rpc.results:commit_result",
    "rpc.artifacts:store_row",
    "rpc.results:submit_result",
)
#: reached when parties come and go, which each restart makes them do
AT_ARRIVAL = ("rpc.enrolment:_keep", "rpc.attach:_greet", "rpc.attach:_reconcile", "sweeper:Sweeper.revive")
AT_DEPOSIT = ("money.deposits:create", "money.deposits:refresh")
#: a requester takes its balance out, and calls it off
AT_WITHDRAWAL = ("money.withdrawals:create", "money.withdrawals:cancel")
#: a payout is started, gets its invoice and is sent
PAYOUT_SENT = ("money.payouts:advance", "money.payouts:_bind", "money.payouts:_send")
#: the node says what became of a payment
PAYOUT_ANSWERED = ("money.payouts:_take_answer",)
#: an address that doesn't answer is asked again, and at last given up
PAYOUT_REFUSED = ("money.payouts:_count_attempt", "money.payouts:_end")
#: a hub's model is described, and then copied
AT_COPY = ("hub.mirror:HubMirror._make_room", "hub.mirror:HubMirror._keep_row", "hub.mirror:HubMirror._grant")
AT_CONTROL = ("rpc.steering:control",)
AT_TOP_UP = ("rpc.steering:top_up_job",)
#: a job has taken longer than its owner allowed
AT_TIME_OUT = ("sweeper:Sweeper._time_out",)
AT_REFERENCE = ("rpc.operator:set_worker_reference",)
AT_HEARTBEAT = ("rpc.attach:heartbeat",)
#: a worker's stream breaks, and its lease runs out
AT_LOSS = ("rpc.attach:_left", "sweeper:Sweeper._expire")
AT_RELEASE = ("rpc.results:release_lease",)
AT_STRAGGLER = ("sweeper:Sweeper._copy_stragglers",)
AT_ONE_KEY = ("sweeper:Sweeper._shrink_quorums",)
AT_LOST_REFERENCE = ("sweeper:Sweeper._replace_references",)
#: content that nothing needs has become old
AT_EXPIRY = ("artifacts.expiry:Expiry._drop", "effect:collect")
#: the same in the middle of a deletion; in-process tests stand in for an object store (tests/coordinator/artifacts)
IN_DELETION = ("effect:set_aside", "effect:mark_dying", "effect:remove_objects")
AT_DELETION_BY_OWNER = ("rpc.storage:StorageServicer.DeleteArtifact",)
AT_DEAD_EXECUTOR = ("outbox:OutboxRunner._note",)

#: somebody signs in to the dashboard, and does something there
AT_DASHBOARD = ("accounts.users:sign_in", "web.dashboard.desk:Desk.commit")

#: a program gets a key and calls the HTTP API with it
AT_API = (
    "rpc.api_keys:ApiKeysServicer.CreateApiKey",
    "api.keys:KeyGate._used",
    "api.desk:ApiDesk.commit",
    "rpc.api_keys:ApiKeysServicer.RevokeApiKey",
)
#: somebody who judges calls, and time makes answers count
AT_PEOPLE = ("people.desk:PeopleDesk.commit", "people.sweeping:_each")
#: whoever asks people ends it early
AT_CLOSING = ("rpc.asked:close_people",)
#: a requester plans and submits a job on a model that the operator offers
AT_OFFERED = ("rpc.models:ModelsServicer.ResolveModel", "rpc.models:ModelsServicer.MirrorModel")
#: the operator takes a worker out of service while it has a shard in hand
AT_THE_OPERATORS_WORD = ("sweeper:Sweeper._enforce_standings",)

#: only coordinators on a database server make these: as they start and end, and on the way of a job
AT_MEETING = ("cluster.identity:check_identity", "cluster.membership:Membership.end")
ON_A_SERVER = (
    "cluster.membership:Membership.begin",
    "cluster.membership:Membership._beat",
    "payments.journal:StoreJournal.add",
    "outbox:OutboxRunner._take",
)

#: scenario -> what it is killed at, on both sides
SCENARIOS: Mapping[str, tuple[str, ...]] = {
    "a plain job": ON_THE_WAY,
    "somebody comes": AT_ARRIVAL,
    "a deposit": AT_DEPOSIT,
    "a withdrawal": AT_WITHDRAWAL,
    "payouts": (*PAYOUT_SENT, *PAYOUT_ANSWERED, *PAYOUT_REFUSED),
    "pause, resume, cancel": AT_CONTROL,
    "a top-up": AT_TOP_UP,
    "a job out of time": AT_TIME_OUT,
    "a reference mark": AT_REFERENCE,
    "a heartbeat": AT_HEARTBEAT,
    "a lost worker": AT_LOSS,
    "a paused worker": AT_RELEASE,
    "a slow worker": AT_STRAGGLER,
    "one key only": AT_ONE_KEY,
    "the dashboard": AT_DASHBOARD,
    "the HTTP API": AT_API,
    "people who judge": AT_PEOPLE,
    "an end to the asking": AT_CLOSING,
    "offered models": AT_OFFERED,
    "the operator's word": AT_THE_OPERATORS_WORD,
    "a reference worker stays away": AT_LOST_REFERENCE,
    "old uploads": AT_EXPIRY,
    "a hub's model": AT_COPY,
    "a deletion cut short": IN_DELETION,
    "content given up": AT_DELETION_BY_OWNER,
    "a dead executor": AT_DEAD_EXECUTOR,
    "coordinators on a server": (*AT_MEETING, *ON_A_SERVER),
}


def both(names: Iterable[str]) -> list[str]:
    """Both sides of each."""
    return [f"{name}:{moment}" for name in names for moment in ("before", "after")]
