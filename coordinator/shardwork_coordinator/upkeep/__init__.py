"""Upkeep: what an operator does to a coordinator's data beside serving it: keys, schema, backup, restore.

keys        a folder of keys for coordinators that share them
snapshot    what a backup holds, and the file that says so
backup      a consistent copy, also of a coordinator that serves
restore     a checked copy back into an empty folder
commands    the command line over them
"""
