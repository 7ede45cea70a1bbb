"""The command `hookware`, and what lies below it."""

import click

from hookware import __version__
from hookware.cli import given
from hookware.cli.add import add
from hookware.cli.bench import bench
from hookware.cli.check import check
from hookware.cli.cron import cron
from hookware.cli.db import db
from hookware.cli.dispatch import dispatch
from hookware.cli.errors import errors
from hookware.cli.queues import queues
from hookware.cli.starter import init
from hookware.cli.status import status
from hookware.cli.tasks import tasks


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: hookware --db sqlite:///app.db status",
)
@given.everything
def hookware() -> None:
    """Durable background tasks for any ASGI app: look at them, steer them, run them.

    Data goes to standard output, talk to standard error. Exit status: 0 done, 1 failed, 2 usage, 3 unhealthy,
    4 nothing matched.
    """


@hookware.command(epilog="Example: hookware version")
@given.talks
def version() -> None:
    """Print hookware's version."""
    click.echo(f'{{"version": "{__version__}"}}' if given.Given.here().json else f"hookware {__version__}")


for _command in (init, check, status, queues, tasks, add, errors, cron, dispatch, db, bench):
    hookware.add_command(_command)
