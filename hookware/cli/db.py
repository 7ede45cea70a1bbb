"""`hookware db`: hookware's tables: what is there, what is missing, make it, print it."""

from dataclasses import asdict

import click

from hookware.cli import given
from hookware.cli.desk import Desk, run
from hookware.cli.failure import UNHEALTHY
from hookware.cli.printer import Line
from hookware.core.amounts import many
from hookware.store.sql.upgrade import DIALECTS, Tables, ddl, tables_in
from hookware.store.sql.upgrade import upgrade as make_what_is_missing


@click.group(epilog="Example: hookware db current --db sqlite:///app.db")
def db() -> None:
    """Look at hookware's tables, make or print them."""


@db.command(epilog="Example: hookware db current --db sqlite:///app.db")
@given.reads
def current() -> None:
    """Say which of hookware's tables, columns and indexes there are, and which are missing; then the status is 3."""

    async def work(desk: Desk) -> int | None:
        desk.place.require()
        found = await desk.outbox.runner.run(tables_in, write=False)
        desk.printer.lines(("table", "state"), _lines(found))
        if not found.lacks:
            desk.printer.say("Nothing is missing.")
            return None
        desk.printer.say(_next_step(found))
        return UNHEALTHY

    run(work)


@db.command(epilog="Example: hookware db upgrade --plan")
@click.option("--plan", is_flag=True, help="Print the statements, and run none.")
@given.changes
def upgrade(plan: bool) -> None:
    """Make the tables, columns and indexes that are missing; nothing is changed or removed.

    This is for a development database, or one without migrations. Where Alembic is in charge, you are asked first.
    """
    run(lambda desk: _upgrade(desk, plan), makes_database=True)


async def _upgrade(desk: Desk, plan: bool) -> None:
    if plan and not desk.place.is_there:
        for statement in ddl("sqlite"):
            click.echo(f"{statement};")
        return
    found = await desk.outbox.runner.run(tables_in, write=False)
    if plan:
        for lack in found.lacks:
            click.echo(f"{lack.statement};" if lack.statement else f"-- {lack.table}, {lack.what}: needs a migration")
        return
    if found.lacks and found.has_alembic:
        desk.confirm("Alembic migrates this database, and would not know of it. Make what is missing all the same?")
    if found.lacks:
        found = await desk.outbox.runner.run(make_what_is_missing)
        desk.outbox.changed()
    made = [{"table": lack.table, "what": lack.what} for lack in found.lacks]
    parts = ", ".join(f"{lack.table} {lack.what}" for lack in found.lacks)
    desk.printer.data({"made": made}, f"Made: {parts}." if made else "Nothing was missing.")


@db.command(epilog="Example: hookware db sql --dialect postgresql | psql app")
@click.option(
    "--dialect", type=click.Choice(DIALECTS), default="postgresql", show_default=True, help="For which database."
)
def sql(dialect: str) -> None:
    """Print the statements that make hookware's tables in an empty database. Needs no database."""
    for statement in ddl(dialect):
        click.echo(f"{statement};")


def _lines(found: Tables) -> list[Line]:
    wanting = {lack.table for lack in found.lacks}
    there = [Line({"table": name, "state": "there"}, (name, "there")) for name in found.there if name not in wanting]
    missing = [
        Line(
            {**asdict(lack), "state": "missing"}, (lack.table, "missing" if lack.what == "table" else f"no {lack.what}")
        )
        for lack in found.lacks
    ]
    return there + missing


def _next_step(found: Tables) -> str:
    what = many(len(found.lacks), "thing is", "things are")
    if found.has_alembic:
        return f"{what} missing. Alembic is in charge here: alembic revision --autogenerate, then alembic upgrade head."
    return f"{what} missing. hookware db upgrade makes what can be made, --plan shows it before."
