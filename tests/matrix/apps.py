"""The apps of the matrix, by name. A server runs `tests.matrix.apps:app`, which is the one that MATRIX_APP names.

Only that one is imported: no app needs the framework of another.
"""

import os
from importlib import import_module

MATRIX_APP = os.environ.get("MATRIX_APP")

APPS: dict[str, str] = {
    'FastAPI, `def`, `scope="function"`': "on_fastapi:of_functions",
    "FastAPI, `def`, default scope": "on_fastapi:with_late_commit",
    "FastAPI, `async def`, AsyncEngine": "on_fastapi:of_coroutines",
    "Starlette, `add_middleware`": "on_starlette:added",
    "Starlette, wrapped": "on_starlette:wrapped",
    "Starlette, three BaseHTTPMiddlewares within": "on_starlette:behind_three",
    "Litestar, `def`": "on_litestar:make",
    "Quart, AsyncEngine": "on_quart:make",
    "Django, `def`": "on_django:make",
    "Falcon, AsyncEngine": "on_falcon:make",
    "BlackSheep, AsyncEngine": "on_blacksheep:make",
    "plain ASGI": "on_nothing:plain",
    "plain ASGI without lifespan": "on_nothing:without_lifespan",
    "`Hookware(engine=...)` alone": "on_nothing:alone",
}
WITHOUT_LIFESPAN = {"Django, `def`", "plain ASGI without lifespan", "`Hookware(engine=...)` alone"}
ASYNC_ENGINE = {name for name in APPS if name.endswith("AsyncEngine")}
NEEDS_ASYNCIO = {"Django, `def`"}
MISCONFIGURED = "a wrong configuration"
HELD = "the app that holds still"
_OTHERS = {MISCONFIGURED: "on_starlette:misconfigured", HELD: "held:make"}

if MATRIX_APP is not None:
    _module, _, _make = {**APPS, **_OTHERS}[MATRIX_APP].partition(":")
    app = getattr(import_module(f"tests.matrix.frameworks.{_module}"), _make)()
