"""The sandbox around the training child: what it may see, write, call and use up.

`jail` says what is wanted; `bubblewrap`, `landlock`, `seccomp` and `limits` are the layers, each useful without the
others; `confine` is run by the child on itself; `trials` tries to get out; `choice` picks the best that works here.
"""
