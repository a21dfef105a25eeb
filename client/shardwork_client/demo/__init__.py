"""A demo on this machine: a coordinator and a worker of one's own in the background, to try everything at no cost.

process     one background program: its log, whether it runs, starting and ending it
local       the two together: found again, started again after a crash with the same data, stopped
"""
