"""What an owner does beside running a worker: have the system start it, and leave without a trace of others' data."""
