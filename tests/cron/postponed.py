"""A function whose annotations are text, and mean what stands around it."""

from __future__ import annotations

from hookware import CronEntry, TaskRouter, cron


def entries() -> list[CronEntry]:
    """Decorate a function inside of this one; give the entries."""
    from sqlmodel import Session as Local

    router = TaskRouter()

    @cron("every day 09:00", router=router)
    def report(session: Local) -> None:
        session.close()

    return router.cron_entries
