"""Commands of `shardwork-worker` beside starting and steering; `cli` puts them together."""
