"""What this worker did and what it got for it: its book of shards, its earnings, and why something is not paid."""
