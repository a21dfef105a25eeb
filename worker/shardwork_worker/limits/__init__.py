"""An owner's limits: when, how much and for whom this machine works; each is measured, held, and told by `why`."""
