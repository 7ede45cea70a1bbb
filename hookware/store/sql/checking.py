"""What the findings are found in, read in one short transaction."""

from collections.abc import Callable
from typing import Final, NamedTuple

from sqlalchemy import Connection

from hookware.core.findings import Installation, broken_tables, findings
from hookware.core.overview import Finding, Overview
from hookware.store.sql import failures, minutes, overview, schema
from hookware.store.sql.asking import Context

_MOST_GROUPS: Final = 200
_EARLIER_MINUTES: Final = 6


class Checked(NamedTuple):
    """What was found, and the overview in which it was; None: there are not even all tables."""

    findings: list[Finding]
    overview: Overview | None = None


def check(connection: Connection, context: Context, own_clock: Callable[[], int]) -> Checked:
    """Look for whatever is wrong; `own_clock` is that of the process that asks."""
    broken, slow = schema.troubles(connection)
    if broken:
        return Checked(broken_tables(broken))
    before_us, now_us = own_clock(), context.begin(connection)
    own_us = (before_us + own_clock()) // 2
    seen = overview.look(connection, context, now_us)
    times_us = [process.seen_us for process in seen.overview.processes]
    latest_us = minutes.latest_us(connection)
    given = Installation(
        overview=seen.overview,
        errors=failures.look(connection, None, _MOST_GROUPS),
        crashed=failures.crashed(connection),
        running_since_us=dict(seen.since_us),
        earlier=overview.last_minutes(connection, now_us, back=_EARLIER_MINUTES),
        clock_offset_us=now_us - own_us,
        latest_us=max([*times_us, *([] if latest_us is None else [latest_us])], default=None),
        missing_indexes=tuple(slow),
    )
    return Checked(findings(given), seen.overview)
