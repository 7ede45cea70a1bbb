"""kill -9: what was answered with 200 happens, what was rolled back does not, and a poison task takes nothing along."""

import ast

import pytest

from tests.crash.conftest import on_both
from verification.crash.campaign import FAILPOINTS, FAILPOINTS_OF_CRON, Campaign, run
from verification.crash.site import ROOT, Site, wait_until

pytestmark = [pytest.mark.crash, pytest.mark.slow]


def named_failpoints() -> set[str]:
    """Find every failpoint in the package."""
    calls = (
        node
        for path in (ROOT / "hookware").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute | ast.Name)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id).lstrip("_") == "fp"
    )
    return {ast.literal_eval(call.args[0]) for call in calls}


def test_the_campaign_kills_at_every_failpoint() -> None:
    assert {*FAILPOINTS, *FAILPOINTS_OF_CRON} == named_failpoints()


@pytest.mark.parametrize("begun", [False, True], ids=["right after the answer", "once it runs"])
def test_a_task_arrives_soon_after_the_restart_long_before_its_lease_ends(site: Site, begun: bool) -> None:
    process = site.start()
    for count in range(1, 6 - 2 * begun):
        assert process.order(f"order {count}", "/own", wait=0.2) == 200
        if begun:
            wait_until(lambda count=count: len(site.lines("start")) == 2 * count - 1, seconds=20)
        process.kill()
        process = site.start()
        wait_until(
            lambda count=count: len(site.effects()) == count, seconds=10, what="the task of the dead process ran"
        )
    assert set(site.effects()) == set(site.orders().values())
    assert set(site.effects().values()) == {1}


@on_both()
def test_random_kills_lose_nothing_and_double_nothing(site: Site) -> None:
    campaign, findings = run(site, kills=5, requests=50, each=0, seed=1)
    findings.verify()
    assert campaign.figures.random_kills == 5


@on_both()
def test_kills_where_effect_and_completion_become_one(site: Site) -> None:
    campaign = Campaign(site, seed=1)
    for failpoint in ("claim.committed", "commit.before", "commit.committed", "reap.settled"):
        assert campaign.kill_at(failpoint), f"{failpoint} was not passed"
    campaign.finish().verify()


def test_a_task_that_kills_its_process_is_dead_after_three_and_those_beside_it_are_not(site: Site) -> None:
    process = site.start(workers=2, lease_seconds=1.0, poll_seconds=0.25, crash_limit=3)
    for number in range(6):
        # Longer than the poison takes: they are in the process whenever it dies.
        assert process.order(f"beside {number}", ("/own", "/joined")[number % 2], wait=0.4) == 200
    assert process.order("poison", "/poison", wait=0.1) == 200
    wait_until(lambda: len(site.lines("start", url="/poison")) == 1, seconds=20)
    for number in range(10):
        # A worker that dies takes its connections along, and the answer: what was ordered is looked up below.
        process.order(f"meanwhile {number}", "/own", wait=0.05)
    site.wait_until_quiet(25)
    poison = site.orders()["poison"]
    assert site.rows("SELECT id, crash_count, dead_reason FROM hookware_task") == [(poison, 3, "crashes")]
    assert [line.attempt for line in site.lines("start", url="/poison")] == [1, 2, 3]
    assert site.effects() == {task: 1 for task in site.orders().values() if task != poison}
