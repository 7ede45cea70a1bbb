"""What the web measure is compared with: no task at all, and Starlette's BackgroundTasks."""

from sqlmodel import Session
from starlette.background import BackgroundTask

from benchmarks.systems.base import System


class NoTask(System):
    """The same request without a task."""

    package = "starlette"

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Commit."""
        session.commit()
        return None


class Background(NoTask):
    """Fast, and lost when the process dies."""

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Commit, and let Starlette call the function after the response."""
        session.commit()
        return BackgroundTask(self.handlers.call, kind, key)


class NoTaskSqlite(NoTask):
    """The same on SQLite."""


class BackgroundSqlite(Background):
    """The same on SQLite."""
