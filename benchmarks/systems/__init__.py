"""hookware and its peers, each behind the interface in `base`."""

from importlib import import_module

from benchmarks.systems.base import Place, System

WHERE = {
    "hookware": ("hookware", "HookwareHandlers"),
    "hookware-route": ("hookware", "HookwareRoutes"),
    "hookware-apart": ("hookware", "HookwareHandlers"),
    "hookware-plain": ("hookware", "HookwarePlain"),
    "hookware-sqlite-plain": ("hookware", "HookwarePlain"),
    "pgqueuer": ("pgqueuer", "PgQueuer"),
    "procrastinate": ("procrastinate", "Procrastinate"),
    "oban": ("oban", "Oban"),
    "saq-postgresql": ("saq", "SaqPostgresql"),
    "dbos": ("dbos", "Dbos"),
    "saq-redis": ("saq", "SaqRedis"),
    "arq": ("arq", "Arq"),
    "taskiq": ("taskiq", "Taskiq"),
    "celery": ("celery", "CeleryThreads"),
    "hookware-sqlite": ("hookware", "HookwareSqliteHandlers"),
    "hookware-sqlite-route": ("hookware", "HookwareSqliteRoutes"),
    "huey": ("huey", "Huey"),
    "no task": ("none", "NoTask"),
    "background": ("none", "Background"),
    "no task sqlite": ("none", "NoTaskSqlite"),
    "background sqlite": ("none", "BackgroundSqlite"),
}
"""Their modules and classes: imported in their own processes only, where their packages are."""

PLAIN = ("hookware-plain", "hookware-sqlite-plain")
"""hookware with handlers that commit by themselves, as the peers have them: for the measure of the web."""
SQLITE = (
    "hookware-sqlite",
    "hookware-sqlite-route",
    "hookware-sqlite-plain",
    "huey",
    "no task sqlite",
    "background sqlite",
)
REDIS = ("saq-redis", "arq", "taskiq", "celery")
INSIDE = ("hookware", "hookware-route", "hookware-sqlite", "hookware-sqlite-route", *PLAIN)
"""Those that run their tasks in the web process, so that they need no other one."""
APART = ("hookware-apart",)
"""hookware with its tasks in a process of their own, as the peers have them: for the measure of the web."""
TASKLESS = ("no task", "background", "no task sqlite", "background sqlite")
QUEUES = tuple(name for name in WHERE if name not in TASKLESS + APART + PLAIN)


def environment_of(name: str) -> str:
    """Give the name of the environment in which a system runs: that of its module."""
    return WHERE[name][0]


def make(name: str, place: Place) -> System:
    """Import a system, and make it; an ImportError says that it is not installed."""
    module, attribute = WHERE[name]
    system: System = getattr(import_module(f"benchmarks.systems.{module}"), attribute)(place)
    return system
