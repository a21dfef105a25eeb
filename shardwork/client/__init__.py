"""The requester's side of the wire as a library: measuring, pricing, submitting, following and collecting jobs.

Owns everything that a program may do as a requester; prints nothing and asks nothing. Needs no torch and no numpy. The
command line is one caller, a notebook another.
"""
