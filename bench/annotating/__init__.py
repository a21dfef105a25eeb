"""Two hundred keys at one people's job, over the coordinator's web API."""
