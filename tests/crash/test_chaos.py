"""A few seconds of the chaos campaign: everything at once, and the checker finds nothing."""

import argparse
from pathlib import Path

import pytest

from tests.postgres import postgres_server
from verification.chaos.campaign import add_arguments, plan_of, run
from verification.crash.database import PostgresDatabase
from verification.crash.site import site_in

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.postgres]

ASKED = "--minutes 0.06 --per-second 40 --kill-every 0.7 --restart-every 1.5 --terminate-every 0.5 --away-every 0"


def test_four_seconds_of_chaos(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    asked = parser.parse_args(ASKED.split())
    with postgres_server() as server, site_in(tmp_path, database := PostgresDatabase(server)) as site:
        outcome = run(asked, plan_of(asked), site, database)
    outcome.verify()
    assert outcome.faults.counts["kills"]
    assert outcome.faults.counts["immediate restarts"]
