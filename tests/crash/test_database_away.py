"""PostgreSQL goes away, or throws everybody out: nothing is lost, the log stays readable, work goes on by itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import PostgresServer, postgres_server
from verification.chaos.outage import live_through
from verification.checker import Limits
from verification.crash.database import PostgresDatabase
from verification.crash.evidence import Answers, judge
from verification.crash.site import Site, site_in

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.postgres]

TROUBLE = ("tries again until it works", "still failing", "all works again")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """Give a server that other tests do not need."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def database(server: PostgresServer) -> PostgresDatabase:
    return PostgresDatabase(server)


@pytest.fixture
def site(database: PostgresDatabase, tmp_path: Path) -> Iterator[Site]:
    with site_in(tmp_path, database) as site:
        yield site


def test_while_the_database_is_away_a_process_is_quiet_and_afterwards_it_goes_on(
    site: Site, server: PostgresServer
) -> None:
    process = site.start()
    outage = live_through(site, process, seconds=3, cut=server.stop, mend=server.start)
    assert len(outage.lines) == 1, outage.lines
    assert TROUBLE[0] in outage.lines[0]
    assert outage.cpu_percent < 50, "a loop that spins takes all there is"
    judge(site, Answers(), Limits()).verify()


def test_thrown_out_again_and_again_everything_happens_and_once(site: Site, database: PostgresDatabase) -> None:
    process = site.start(poll_seconds=0.1)
    urls = ("/own", "/joined", "/outside")
    for number in range(30):
        process.order(f"order {number}", urls[number % 3], wait=0.2)
        if number % 3 == 2:
            database.throw_out()
    site.wait_until_quiet(60)
    orders = {key: task for key, task in site.orders().items() if int(key.split()[1]) % 3 < 2}
    assert site.effects() == dict.fromkeys(orders.values(), 1)
    judge(site, Answers(), Limits()).verify()
    said = [line for line in process.log.splitlines() if any(words in line for words in TROUBLE)]
    assert 1 <= len(said) <= 3, said
