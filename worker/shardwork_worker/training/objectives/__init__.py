"""Objectives: what a learn shard minimises, and what is measured of held-out rows, where it is not the next token."""
