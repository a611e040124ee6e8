"""The address of a journal's database: what of it is for the server, what is for us, and what an error may show."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

DEFAULT_SCHEMA = "orchestra"
"""The schema of a journal whose address names none."""
_SCHEMA_OPTION = "schema="


def split_dsn(dsn: str) -> tuple[str, str]:
    """The address as the server is told it, and the schema that it names with `?schema=NAME`, which no server knows."""
    address, _, query = dsn.partition("?")
    told = query.split("&") if query else []
    named = [unquote(part.removeprefix(_SCHEMA_OPTION)) for part in told if part.startswith(_SCHEMA_OPTION)]
    kept = "&".join(part for part in told if not part.startswith(_SCHEMA_OPTION))
    return f"{address}?{kept}" if kept else address, (named[-1] if named else "") or DEFAULT_SCHEMA


def redact_dsn(dsn: str) -> str:
    """A DSN without its password and its options: what an error may show."""
    try:
        parts = urlsplit(dsn)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the database"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}" if parts.scheme else "the database"
