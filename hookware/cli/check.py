"""`hookware check`: what is wrong, in sentences, each with the next step."""

from dataclasses import asdict
from typing import Final

import click

from hookware.cli import given
from hookware.cli.desk import Desk, run
from hookware.cli.failure import UNHEALTHY
from hookware.cli.text import plain
from hookware.core.overview import Finding, Severity

_COLORS: Final[dict[Severity, str]] = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command(epilog="Example: hookware check --app main:app || page-somebody")
@given.reads
def check() -> None:
    """Look for whatever is wrong, and what to do.

    It looks at the tables, queues, errors, processes and clocks.

    Each finding is a sentence and the next step. Exit status 3: there is an error or a warning. A limit that is
    configured in the app is known by --app only.
    """
    run(_check)


async def _check(desk: Desk) -> int | None:
    findings = await desk.insight.check()
    for finding in findings:
        desk.printer.data(asdict(finding), _text(finding), is_styled=True)
    if not findings:
        desk.printer.say("Nothing is wrong.")
    if not desk.place.has_app:
        desk.printer.say("The limits that your app configures are looked at too, with --app main:app.")
    return UNHEALTHY if any(finding.severity != "note" for finding in findings) else None


def _text(finding: Finding) -> str:
    severity = click.style(finding.severity, fg=_COLORS[finding.severity], bold=True)
    return f"{severity} [{finding.code}] {plain(finding.sentence)}\n  next: {plain(finding.next_step)}"
