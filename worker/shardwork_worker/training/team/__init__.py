"""Team: several devices of one worker on one shard.

`team` is what the training loop knows of it and how its processes are started; `rank` is the program of each further
one.
"""
