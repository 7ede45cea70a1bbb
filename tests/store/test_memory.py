"""The store in memory keeps the contract, on asyncio and trio."""

from collections.abc import Sequence

import pytest

from hookware.core.lifecycle import Complete, State
from hookware.core.task import NewTask
from hookware.store.base import Claim, Settlement
from hookware.store.memory import MemoryStore
from tests.store.contract import StoreContract
from tests.store.subject import LEASE_US, QUEUES, TOMBSTONE_US, ManualClock, Subject, new_task


@pytest.fixture
def subject() -> Subject:
    clock = ManualClock()
    store = MemoryStore(clock, tombstone_us=TOMBSTONE_US, queues=QUEUES)

    async def insert(tasks: Sequence[NewTask]) -> None:
        store.insert(tasks)

    return Subject(store, clock, insert)


class TestMemoryStore(StoreContract):
    """All of the contract."""


class KilledError(Exception):
    """Raised at a failpoint."""


@pytest.mark.parametrize("place", ["before", "updated", "committed"])
async def test_a_failpoint_undoes_what_is_not_committed(place: str) -> None:
    killing: set[str] = set()

    def fp(name: str) -> None:
        if name in killing:
            raise KilledError(name)

    store = MemoryStore(ManualClock(), fp=fp, tombstone_us=0)
    await store.add([new_task(task_id=1)])
    killing.add(f"claim.{place}")
    with pytest.raises(KilledError):
        await store.claim(Claim(owner="me", limit=1, lease_us=LEASE_US))
    killing.clear()
    info = await store.get(1)
    assert info is not None
    assert info.state is (State.LEASED if place == "committed" else State.PENDING)
    tasks = (await store.claim(Claim(owner="me", limit=1, lease_us=LEASE_US))).tasks or await store.expired(1, ["me"])
    killing.add(f"settle.{place}")
    with pytest.raises(KilledError):
        await store.settle([Settlement(tasks[0].lease, Complete())])
    assert (await store.get(1) is None) is (place == "committed")
