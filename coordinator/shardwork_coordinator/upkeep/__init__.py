"""Upkeep: what an operator does to a coordinator's data beside serving it: keys, schema, backup, restore.

keys        a folder of keys for coordinators that share them
snapshot    what a backup holds, and the file that says so
filling     a folder that is marked until it is whole, and what becomes of one that was cut short
examined    whether a database is whole and its books add up
backup      a consistent copy, also of a coordinator that serves
restore     a checked copy back into an empty folder
commands    the command line over them
open_files  how many files the process may have open, and which share of them strangers'
"""
