"""The journal in a Postgres database. Its modules need asyncpg."""

__all__ = ["connections", "errors", "journal"]
