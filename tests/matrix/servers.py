"""The servers of the matrix: how each is started, and how many processes of it run the app."""

from dataclasses import dataclass

_APP = "tests.matrix.apps:app"
_UVICORN = f"uvicorn {_APP} --port {{port}} --loop asyncio"
_GUNICORN = f"gunicorn {_APP} --bind 127.0.0.1:{{port}} --no-control-socket"
_HYPERCORN = f"hypercorn {_APP} --bind 127.0.0.1:{{port}}"
_GRANIAN = f"granian {_APP} --interface asgi --port {{port}} --loop asyncio"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKind:
    """One way to run an app.

    Attributes:
        command: the module and its arguments, with places for `port` and an empty `folder`.
        processes: how many of them run the app.
        is_trio: the app runs on trio, where an AsyncEngine cannot.
        may_kill: it is known to kill a process without the shutdown of its lifespan.
    """

    command: str
    processes: int = 1
    is_trio: bool = False
    may_kill: bool = False


SERVERS: dict[str, ServerKind] = {
    "uvicorn, httptools": ServerKind(command=f"{_UVICORN} --http httptools"),
    "uvicorn, h11": ServerKind(command=f"{_UVICORN} --http h11"),
    "uvicorn, uvloop": ServerKind(command=f"uvicorn {_APP} --port {{port}} --loop uvloop"),
    "uvicorn `--workers 2`": ServerKind(command=f"{_UVICORN} --workers 2", processes=2),
    "uvicorn `--reload`": ServerKind(command=f"{_UVICORN} --reload --reload-dir {{folder}}"),
    "hypercorn": ServerKind(command=_HYPERCORN),
    "hypercorn, trio": ServerKind(command=f"{_HYPERCORN} --worker-class trio", is_trio=True),
    "hypercorn `-w 2`": ServerKind(command=f"{_HYPERCORN} --workers 2", processes=2, may_kill=True),
    "granian": ServerKind(command=_GRANIAN),
    "granian `--workers 2`": ServerKind(command=f"{_GRANIAN} --workers 2", processes=2),
    "gunicorn, uvicorn-worker": ServerKind(command=f"{_GUNICORN} --worker-class uvicorn_worker.UvicornWorker"),
    "gunicorn, asgi": ServerKind(command=f"{_GUNICORN} --worker-class asgi"),
}
PACKAGES = ("uvicorn", "httptools", "h11", "uvloop", "hypercorn", "trio", "granian", "gunicorn", "uvicorn-worker")
"""Whose versions the table gives, besides the frameworks'."""
