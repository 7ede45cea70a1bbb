"""An empty place beside an installation's tables, on the same disk or server, for measurements; gone afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL, text

from hookware.store.sql.outbox import Outbox

_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")


@asynccontextmanager
async def scratch(outbox: Outbox) -> AsyncIterator[URL]:
    """Give the URL of a new file in the folder of a SQLite database, or of a new schema of a PostgreSQL."""
    url, name = outbox.sync_engine.url, f"hookware_bench_{outbox.env.new_token()[:12]}"
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database)).with_name(f"{name}.db")
        try:
            yield URL.create("sqlite", database=str(path))
        finally:
            for suffix in _SUFFIXES:
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        return
    await outbox.runner.run(lambda connection: connection.execute(text(f"CREATE SCHEMA {name}")))
    try:
        yield _in_schema(url, name)
    finally:
        await outbox.runner.run(lambda connection: connection.execute(text(f"DROP SCHEMA {name} CASCADE")))


def _in_schema(url: URL, name: str) -> URL:
    options = url.query.get("options", ())
    several = [options] if isinstance(options, str) else [*options]
    return url.set(drivername="postgresql+psycopg").update_query_dict(
        {"options": " ".join([*several, f"-csearch_path={name}"])}
    )
