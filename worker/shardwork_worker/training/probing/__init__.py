"""What a published model makes of some rows: what it knows by heart, and a few samples for its owner to read."""
