"""The requester's command line, `shardwork`. Map: `cli` (root), `commands` (verbs), and one module a noun."""
