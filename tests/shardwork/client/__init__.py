"""Tests of the requester's library."""
