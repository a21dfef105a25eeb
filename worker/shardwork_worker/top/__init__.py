"""`shardwork-worker top`: the worker at a glance, in a terminal. `snapshot` looks, `panels` tells, `screen` shows.

textual is imported by `screen` alone.
"""
