"""`hookware cron`: the entries of an app, and what a schedule means."""

from datetime import UTC, datetime, timedelta

import click

from hookware.cli import given
from hookware.cli.desk import Desk, run
from hookware.cli.failure import NOTHING, USAGE, Failure, failure_of
from hookware.cli.printer import Line, Printer
from hookware.cli.text import cut
from hookware.env import Env
from hookware.errors import InvalidScheduleError, UnknownCronEntryError
from hookware.scheduled import Cron, CronStatus
from hookware.schedules import schedule

_NAME = click.argument("name")
_COUNT = click.option(
    "-n", "--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many times."
)
_COLUMNS = ("url", "schedule", "timezone", "next", "last", "state", "description")


@click.group(epilog="Example: hookware cron list --app main:app")
def cron() -> None:
    """List cron entries, run or pause one; explain a schedule.

    NAME is an entry's URL, where only one entry has it, or its whole name, "URL SCHEDULE TIMEZONE".
    """


@cron.command("list", epilog="Example: hookware cron list --app main:app")
@given.reads
def list_entries() -> None:
    """List the entries, with their next and last times."""

    async def work(desk: Desk) -> int | None:
        entries = await _cron(desk).entries()
        if not desk.printer.lines(_COLUMNS, [Line(_json(entry), _cells(entry)) for entry in entries]):
            desk.printer.say("The app has no cron entry.")
            return NOTHING
        return None

    run(work)


@cron.command("next", epilog="Example: hookware cron next /report -n 3 --app main:app")
@_NAME
@_COUNT
@given.reads
def next_times(name: str, count: int) -> None:
    """Print the next times of an entry, by its schedule and this host's clock."""

    async def work(desk: Desk) -> None:
        found = await _entry(desk, name)
        for at in _cron(desk).next_times(found.name, count):
            desk.printer.data({"name": found.name, "time": at}, f"{at:%Y-%m-%d %H:%M:%S} UTC")

    run(work)


@cron.command("run", epilog="Example: hookware cron run /report --app main:app")
@_NAME
@given.changes
def run_entry(name: str) -> None:
    """Add a task of an entry, due now and beside its times; its id is printed."""

    async def work(desk: Desk) -> None:
        found = await _entry(desk, name)
        task_id = await _cron(desk).run_now(found.name)
        desk.printer.data({"name": found.name, "id": task_id}, str(task_id))

    run(work)


@cron.command(epilog="Example: hookware cron pause /report --app main:app")
@_NAME
@given.changes
def pause(name: str) -> None:
    """Let an entry's times pass by, in all processes, until resume."""

    async def work(desk: Desk) -> None:
        found = await _entry(desk, name)
        await _cron(desk).pause(found.name)
        desk.printer.data({"name": found.name, "paused": True}, f"{found.name} is paused.")

    run(work)


@cron.command(epilog="Example: hookware cron resume /report --app main:app")
@_NAME
@given.changes
def resume(name: str) -> None:
    """Let an entry go on, in all processes."""

    async def work(desk: Desk) -> None:
        found = await _entry(desk, name)
        await _cron(desk).resume(found.name)
        desk.printer.data({"name": found.name, "paused": False}, f"{found.name} goes on.")

    run(work)


@cron.command(epilog='Example: hookware cron explain "every day 09:00" --timezone Europe/Berlin')
@click.argument("text", metavar="SCHEDULE")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Whose clocks it is for.")
@_COUNT
@given.talks
def explain(text: str, timezone: str, count: int) -> None:
    """Say when a schedule comes due: App Engine's English, or five fields as in a crontab. Needs no database."""
    try:
        found = schedule(text, timezone)
    except (InvalidScheduleError, ImportError) as error:
        raise failure_of(error) or error from None
    printer, at_us = Printer(given.Given.here()), Env().now_us()
    for _ in range(count):
        later_us = found.next_after(at_us)
        if later_us is None:
            printer.say("It never comes due after that.")
            break
        at_us = later_us
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
        printer.data({"schedule": text, "timezone": timezone, "time": at}, f"{at:%Y-%m-%d %H:%M:%S} UTC")


def _cron(desk: Desk) -> Cron:
    if not desk.place.has_app:
        raise Failure("cron entries stand in the app, not in the database: pass --app main:app", USAGE)
    return Cron(desk.outbox)


async def _entry(desk: Desk, name: str) -> CronStatus:
    entries = await _cron(desk).entries()
    found = [each for each in entries if each.name == name] or [each for each in entries if each.entry.url == name]
    match found:
        case [entry]:
            return entry
        case []:
            names = "; ".join(entry.name for entry in entries) or "none"
            raise UnknownCronEntryError(f"there is no cron entry {name[:200]!r}; there are: {names}")
        case several:
            names = "; ".join(repr(entry.name) for entry in several)
            raise Failure(f"{len(several)} cron entries have the URL {name!r}: give the whole name, of {names}", USAGE)


def _json(status: CronStatus) -> dict[str, object]:
    names = ("name", "next_time", "last_time", "task_id", "is_running", "is_paused")
    entry = {name: getattr(status.entry, name) for name in ("url", "schedule", "timezone", "description")}
    return {**entry, **{name: getattr(status, name) for name in names}}


def _cells(status: CronStatus) -> tuple[object, ...]:
    state = "paused" if status.is_paused else "running" if status.is_running else "waiting"
    entry = status.entry
    times = [f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "-" for at in (status.next_time, status.last_time)]
    return entry.url, entry.schedule, entry.timezone, *times, state, cut(entry.description, 40)
