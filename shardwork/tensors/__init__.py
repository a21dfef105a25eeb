"""Numbers on disk, in numpy: tensor files read in pieces, int8 and fp32 encodings, checkpoints, deltas and steps."""
