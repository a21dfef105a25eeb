"""The doctor: what a shard would meet on this machine, check by check, before one does.

`examination` runs the checks; `machine`, `gpu`, `child` and `line` are what it checks; `finding` is what each says.
"""
