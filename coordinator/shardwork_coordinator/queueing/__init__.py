"""Queueing: whose turn it is, and what is known of the workers that wait for work.

`fairness` is the order (pure), `line` keeps it in the database, `history` and `reliability` read a worker's record,
`standing` is what the operator lets it do, `commands` how he says so. Who gets which shard is `scheduler`, what a
grant means is `machine`. Used by `granting`, the sweeper and `views`.
"""
