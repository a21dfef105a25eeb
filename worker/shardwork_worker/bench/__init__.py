"""The benchmark: tokens a second of each kind of training on this device, as real shards run, and what they earn.

`workload` writes what is learned, `measuring` runs it in the sandboxed child, `income` counts the sats, `report` is the
record, kept and printed.
"""
