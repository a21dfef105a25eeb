"""Payments: how sats enter and leave. `base` is the Protocol of five calls; each back-end is one file beside it."""
