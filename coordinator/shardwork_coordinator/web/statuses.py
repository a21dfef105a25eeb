"""Statuses: which HTTP status a typed error becomes. Used by everything that answers over HTTP."""

from __future__ import annotations

from shardwork import errors

_STATUSES: dict[type[errors.ShardworkError], int] = {
    errors.InvalidInput: 400,
    errors.NotAuthenticated: 401,
    errors.NotEnoughFunds: 402,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.StaleLease: 409,
    errors.LimitExceeded: 429,
    errors.Unreachable: 503,
}


def http_status(error: errors.ShardworkError) -> int:
    """500 for what nobody foresaw."""
    return _STATUSES.get(type(error), 500)
