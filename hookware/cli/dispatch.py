"""`hookware dispatch main:app`: the app's tasks, without a server."""

import logging
import os
import sys

import anyio
import click

from hookware.config import DISPATCH_VARIABLE
from hookware.errors import Error
from hookware.headless import Headless
from hookware.import_app import import_app
from hookware.signals import Signals


@click.command(epilog="Example: hookware dispatch main:app --drain")
@click.argument("app")
@click.option("--factory", is_flag=True, help="APP is a function that makes the app.")
@click.option("--drain", is_flag=True, help="End when no task is due and none runs here.")
def dispatch(app: str, factory: bool, drain: bool) -> None:
    """Run an app's tasks, without a server.

    APP is module:attribute, as for uvicorn.

    SIGTERM or Ctrl-C: claim no more tasks, let the running ones end for drain_seconds, give back the others.
    A second one cuts the running ones short and gives them back. A third one leaves at once.
    """
    signals = Signals(is_awaited=drain)
    signals.install()
    os.environ[DISPATCH_VARIABLE] = "on"
    try:
        headless = Headless(import_app(app, is_factory=factory), signals, drain=drain)
        _log_to_stderr()
        signals.install()  # again: the app may have its own, as for a server
        refusal = anyio.run(headless.run)
    except Error as error:
        raise click.ClickException(str(error)) from None
    if refusal is not None:
        raise click.ClickException(refusal)
    sys.exit(headless.status)


def _log_to_stderr() -> None:
    """Show hookware's log, where the app does not set up a log of its own, now or later."""
    logger, handler = logging.getLogger("hookware"), logging.StreamHandler()
    if not logger.hasHandlers():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handler.addFilter(lambda _record: not logging.getLogger().handlers)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
