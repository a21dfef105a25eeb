"""Whose turn it is, and what is known of workers."""
