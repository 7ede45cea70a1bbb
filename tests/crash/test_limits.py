"""A little of the campaign of limits: each part with few tasks, on three processes."""

from pathlib import Path

import pytest

from tests.crash.conftest import on_both
from verification.crash.site import Site
from verification.limits.campaign import PARTS, SHORT, run_parts
from verification.limits.fleet import Run, fleet_on, most_at_once

pytestmark = [pytest.mark.crash, pytest.mark.slow]


@pytest.mark.timeout(120)
@on_both()
def test_three_processes_share_rates_limits_names_and_keys(site: Site, tmp_path: Path) -> None:
    said: list[str] = []
    with fleet_on(site.database.url, tmp_path) as fleet:
        assert run_parts(fleet, SHORT, PARTS, said.append) == {}, said
    assert len(said) == len(PARTS)


def test_what_runs_at_once_is_counted_up_to_an_end_or_for_ever() -> None:
    runs = [Run(start, end, 1, "q", "", 1) for start, end in ((0.0, 2.0), (1.0, None), (2.0, 3.0), (2.5, 2.6))]
    assert most_at_once(runs[:2]) == 2
    assert most_at_once(runs[:3]) == 2
    assert most_at_once(runs) == 3
