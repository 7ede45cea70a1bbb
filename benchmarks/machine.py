"""What the measurements ran on."""

import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.places import Places
from hookware import __version__


def processor() -> str:
    """Give the processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def describe(places: Places) -> dict[str, Any]:
    """Give the machine, the servers and the versions that all systems share; and how busy it was."""
    found: dict[str, Any] = {
        "hookware": __version__,
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load_at_begin": round(os.getloadavg()[0], 2),
    }
    if places.postgres:
        with places.connect() as connection:
            for setting in ("server_version", "fsync", "synchronous_commit", "shared_buffers"):
                row = connection.execute(f"SHOW {setting}".encode()).fetchone()
                found["postgresql" if setting == "server_version" else setting] = str(row[0]) if row else "?"
    if places.redis:
        import redis

        found["redis"] = redis.Redis.from_url(places.redis).info("server")["redis_version"]
    for package in ("sqlalchemy", "psycopg", "starlette", "anyio", "uvicorn", "uvloop"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
