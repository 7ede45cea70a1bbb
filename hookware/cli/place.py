"""The database that a command works on: by its URL, or that of an app, with what the app configures."""

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from starlette.applications import Starlette
from starlette.types import ASGIApp

from hookware.cli.failure import Failure
from hookware.cli.given import Given
from hookware.config import Config
from hookware.core.queue import CRON_QUEUE, CRON_SETTINGS
from hookware.env import Env
from hookware.errors import ConfigurationError
from hookware.events import Events
from hookware.import_app import import_app
from hookware.middleware import Hookware
from hookware.store.sql.outbox import Outbox

_INNER: Final = ("app", "asgi_app", "asgi_handler")
"""Under which names wrappers and frameworks keep the app inside."""


class Place(NamedTuple):
    """A database, and the app that it was found by; `layers` keeps the app alive."""

    outbox: Outbox
    layers: tuple[object, ...] = ()

    @property
    def has_app(self) -> bool:
        """Whether the app's configuration is known: its queues, its cron entries, its codec."""
        return bool(self.layers)

    @property
    def is_there(self) -> bool:
        """Whether there may be a database: a SQLite file that is missing would be made by looking at it."""
        url = self.outbox.sync_engine.url
        if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
            return True
        return os.path.exists(url.database)

    def require(self) -> None:
        """See that there is a database.

        Raises:
            Failure: there is no such file.
        """
        if not self.is_there:
            raise Failure(
                f"there is no file {os.path.abspath(str(self.outbox.sync_engine.url.database))}: check the URL and the "
                "folder that you are in, or make the database by starting your app, or with hookware db upgrade"
            )


def place_of(given: Given) -> Place:
    """Find the database that the command line names.

    Raises:
        Failure: none or two are named.
        ConfigurationError: the URL cannot be used, there is no such app, or no Hookware in it.
    """
    url = given.url
    if url is not None:
        config = Config(dispatch=False, create_tables=False, queues={CRON_QUEUE: CRON_SETTINGS})
        return Place(Outbox(url, env=Env(), config=config, events=Events()))
    path = given.app or ""
    layers = tuple(_layers(import_app(path, is_factory=given.factory)))
    found = next((layer for layer in layers if isinstance(layer, Hookware)), None)
    if found is None:
        raise ConfigurationError(
            f"there is no Hookware around {path} or in it: name the app that Hookware wraps, or pass --db"
        )
    if found._refused is not None:
        raise found._refused
    return Place(found._outbox, layers)


def _layers(app: ASGIApp) -> Iterator[object]:
    """Give an app and what it wraps, from the outside in."""
    seen: list[object] = []
    layer: object = app
    while layer is not None and not any(layer is each for each in seen):
        seen.append(layer)
        yield layer
        if isinstance(layer, Starlette):
            layer = layer.middleware_stack or layer.build_middleware_stack()
        else:
            layer = next((inner for name in _INNER if (inner := getattr(layer, name, None)) is not None), None)
