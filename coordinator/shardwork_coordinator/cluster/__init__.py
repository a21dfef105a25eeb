"""Cluster: what coordinators on one PostgreSQL database and one artifact store need of each other.

`identity` refuses a coordinator with other keys or another store; `membership` says who lives and which worker is
attached where; `bulletin` wakes the others after a commit. A coordinator that is alone uses none of it. Used by `app`.
"""
