"""The options that many commands have, before the command's name or after it, and what was given of them."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import click

from hookware.cli.failure import USAGE, Failure
from hookware.store.sql.address import holds_password

F = TypeVar("F", bound=Callable[..., Any])
DATABASE_VARIABLE = "HOOKWARE_DATABASE_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the command line says for all commands; what it does not say is empty."""

    db: str | None = None
    app: str | None = None
    factory: bool = False
    json: bool = False
    filter: str | None = None
    quiet: bool = False
    yes: bool = False
    no_color: bool = False

    @classmethod
    def here(cls) -> "Given":
        """Give that of the command that runs."""
        said = click.get_current_context().ensure_object(dict)
        return cls(**{each.name: said[each.name] for each in fields(cls) if each.name in said})

    @property
    def url(self) -> str | None:
        """The database's URL, where it is given; that of the environment counts where no app is named."""
        if self.db is not None and self.app is not None:
            raise Failure("--db and --app are both given, and may mean two databases: leave one out", USAGE)
        if self.app is not None:
            return None
        if self.db == "":
            raise Failure("--db is empty: pass a URL, such as sqlite:///app.db, or leave --db out", USAGE)
        url = self.db or os.environ.get(DATABASE_VARIABLE)
        if not url:
            raise Failure(
                "which database? Pass --db sqlite:///app.db, or --app main:app to take that of your app, or set "
                f"{DATABASE_VARIABLE}",
                USAGE,
            )
        return url

    def options(self) -> list[str]:
        """Give what names the database, for a line that people can paste; never a password."""
        if self.app is not None:
            return ["--app", self.app, *(["--factory"] if self.factory else [])]
        return [] if self.db is None or holds_password(self.db) else ["--db", self.db]


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    said = context.ensure_object(dict)
    if value not in (None, False):
        said[parameter.name] = value
    if said.get("no_color") or os.environ.get("NO_COLOR"):
        context.color = False


def _option(*names: str, **how: Any) -> Callable[[F], F]:
    return click.option(*names, expose_value=False, callback=_keep, **how)


_PLACE = (
    _option("--db", metavar="URL", help=f"The database, as sqlite:///app.db; without it, {DATABASE_VARIABLE}."),
    _option("--app", metavar="APP", help="The app, as main:app: its database, and the queues and cron it configures."),
    _option("--factory", is_flag=True, help="APP is a function that makes the app."),
)
_TALK = (
    _option("--json", is_flag=True, help="Print JSON, for lists an object on each line."),
    _option("-q", "--quiet", is_flag=True, help="Say nothing but errors beside the data."),
    _option("--no-color", is_flag=True, help="No colours; NO_COLOR does the same."),
)
_YES = (_option("-y", "--yes", is_flag=True, help="Do not ask before doing it."),)
_FILTER = (_option("--filter", metavar="FILTER", help="Which tasks, such as 'state:dead queue:mail older:2h'."),)


def _all(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


everything: Callable[[Any], Any] = _all((*_PLACE, *_FILTER, *_TALK, *_YES))
"""For `hookware` itself: all of them, before the name of a command."""

reads: Callable[[Any], Any] = _all((*_PLACE, *_TALK))
"""For a command that looks at a database."""

reads_many: Callable[[Any], Any] = _all((*_FILTER, *_PLACE, *_TALK))
"""For one that looks at tasks by a filter."""

changes: Callable[[Any], Any] = _all((*_PLACE, *_TALK, *_YES))
"""For one that changes something."""

changes_many: Callable[[Any], Any] = _all((*_FILTER, *_PLACE, *_TALK, *_YES))
"""For one that changes tasks by a filter."""

talks: Callable[[Any], Any] = _all(_TALK)
"""For one without a database."""
