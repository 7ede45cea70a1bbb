"""A process dies in the middle of its tasks: on its host they run again at once, elsewhere when the lease ends."""

import pytest

from tests.crash.conftest import on_both
from verification.chaos.recovery import elsewhere, on_the_same_host
from verification.crash.site import Site

pytestmark = [pytest.mark.crash, pytest.mark.slow]


@on_both()
def test_a_successor_on_the_same_host_does_not_wait_for_the_lease(site: Site) -> None:
    recovery = on_the_same_host(site, lease_seconds=60, poll_seconds=0.5)
    assert recovery.after_lease < -20


@on_both()
def test_on_another_host_the_lease_is_waited_for_and_not_longer_than_it_takes(site: Site) -> None:
    recovery = elsewhere(site, lease_seconds=2, poll_seconds=0.5)
    assert recovery.after_lease >= 0
