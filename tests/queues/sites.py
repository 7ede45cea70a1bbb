"""Where the contract of queues is tried: blocking and awaited, on SQLite and PostgreSQL."""

import pytest

EVERY_SITE = pytest.mark.parametrize(
    ("anyio_backend", "database"),
    [
        ("trio", "sqlite"),
        ("asyncio", "sqlite+aiosqlite"),
        pytest.param("asyncio", "postgresql", marks=pytest.mark.postgres),
        pytest.param("asyncio", "postgresql+asyncpg", marks=pytest.mark.postgres),
    ],
    indirect=["database"],
)
