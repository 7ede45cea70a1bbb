"""Every address of the dashboard with what it needs: one table, and nothing is served that is not in it."""

import re
from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from hookware.dashboard import acts, many, pages
from hookware.dashboard.access import Role
from hookware.dashboard.visit import Moved, Shown, Visit

Serve = Callable[[Visit], Awaitable[Shown | Moved]]


class Route(NamedTuple):
    """An address: with which method, for whom, and what serves it. `{id}` in its path is a number."""

    method: Literal["GET", "POST"]
    path: str
    role: Role
    serve: Serve


ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/", "read", pages.overview),
    Route("GET", "/queues", "read", pages.queues),
    Route("GET", "/queue", "read", pages.queue),
    Route("GET", "/tasks", "read", pages.tasks),
    Route("GET", "/task/{id}", "read", pages.task),
    Route("GET", "/task/{id}/delete", "operate", pages.task_delete),
    Route("GET", "/errors", "read", pages.errors),
    Route("GET", "/cron", "read", pages.cron),
    Route("GET", "/processes", "read", pages.processes),
    Route("GET", "/audit", "read", pages.log),
    Route("GET", "/compose", "admin", pages.compose),
    Route("GET", "/queue/purge", "admin", pages.queue_purge),
    Route("GET", "/many", "operate", many.preview),
    Route("POST", "/task/{id}/run", "operate", acts.task_run),
    Route("POST", "/task/{id}/retry", "operate", acts.task_retry),
    Route("POST", "/task/{id}/postpone", "operate", acts.task_postpone),
    Route("POST", "/task/{id}/cancel", "operate", acts.task_cancel),
    Route("POST", "/task/{id}/delete", "operate", acts.task_delete),
    Route("POST", "/undo/{id}", "operate", acts.task_restore),
    Route("POST", "/queue/pause", "operate", acts.queue_pause),
    Route("POST", "/queue/resume", "operate", acts.queue_resume),
    Route("POST", "/queue/settings", "operate", acts.queue_settings),
    Route("POST", "/queue/reset", "operate", acts.queue_reset),
    Route("POST", "/queue/purge", "admin", many.purge),
    Route("POST", "/cron/run", "operate", acts.cron_run),
    Route("POST", "/cron/pause", "operate", acts.cron_pause),
    Route("POST", "/cron/resume", "operate", acts.cron_resume),
    Route("POST", "/compose", "admin", acts.compose),
    Route("POST", "/many", "operate", many.step),
)

_PATTERNS: Final = tuple(
    (re.compile(re.escape(route.path).replace(r"\{id\}", r"([0-9]{1,18}|[1-8][0-9]{18})")), route) for route in ROUTES
)


def find(method: str, path: str) -> tuple[Route, tuple[int, ...]] | frozenset[str]:
    """Give the route of a request and the ids in its path; or the methods that its path has, none where it has none."""
    methods = set()
    for pattern, route in _PATTERNS:
        found = pattern.fullmatch(path)
        if found is not None and route.method == method:
            return route, tuple(map(int, found.groups()))
        if found is not None:
            methods.add(route.method)
    return frozenset(methods)
