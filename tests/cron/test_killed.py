"""kill -9 before and after the commit of a fire: the time is neither lost nor fired twice."""

import signal

import pytest

from tests.cron.clockwork import HOUR_US
from tests.cron.killed import fire_and_die
from tests.databases import EVERY_DATABASE, Database
from tests.running import forked
from verification.crash.campaign import FAILPOINTS_OF_CRON


def fire(database: Database, at: str = "") -> int | None:
    """Let a process fire what is due, and die at a failpoint; give its status."""
    url = database.url.render_as_string(hide_password=False)
    process = forked.Process(target=fire_and_die, args=(url, at))
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.slow
@EVERY_DATABASE
def test_a_process_that_is_killed_neither_loses_a_time_nor_doubles_it(database: Database) -> None:
    assert fire(database) == 0
    look = database.look()
    for failpoint, fired in zip(FAILPOINTS_OF_CRON, (0, 1), strict=True):
        look.execute("DELETE FROM hookware_task")
        look.execute("UPDATE hookware_cron SET next_us = next_us - ?", 2 * HOUR_US)
        assert fire(database, at=failpoint) == -signal.SIGKILL
        assert look.rows("SELECT count(*) FROM hookware_task") == [fired]
        assert fire(database) == fire(database) == 0
        assert look.rows("SELECT count(*), count(DISTINCT eta_us) FROM hookware_task") == [(1, 1)]
    look.close()
