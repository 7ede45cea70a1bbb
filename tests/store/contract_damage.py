"""What a SQL store must do with rows that something else has damaged."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hookware.core.lifecycle import Complete, Retry, State
from hookware.core.task import Keys
from hookware.store.base import AddResult, Settlement
from tests.store.subject import LEASE_US, TOMBSTONE_US, Subject, new_task

DAMAGES = {
    "headers that are no JSON": "headers = '['",
    "headers of another shape": "headers = '{}'",
    "headers too deep": f"headers = '{'[' * 100_000}'",
    "unknown retry options": "retry_options = '{\"later\": 1}'",
    "a body of text": "body = 'text'",
    "text that is not UTF-8": "url = CAST(x'ff' AS TEXT)",
    "a count that is text": "attempt_count = 'many'",
    "a deadline that is text": "deadline_us = 'late'",
    "a deadline of nothing": "deadline_us = 0",
    "a deadline without end": "deadline_us = 9223372036854775807",
    "a fence that cannot be raised": "fence = 9223372036854775807",
    "attempts that cannot be counted": "attempt_count = 2147483647",
    "more crashes than attempts": "crash_count = 1",
    "fewer crashes than none": "crash_count = -1",
    "a retry limit that is text": 'retry_options = \'{"task_retry_limit": "x"}\'',
    "doublings that are no number": "retry_options = '{\"max_doublings\": NaN}'",
    "a wait before now": "retry_options = '{\"min_backoff_seconds\": -1}'",
    "a name that is not UTF-8": "name = CAST(x'ff' AS TEXT)",
    "a status that is not UTF-8": "last_status = CAST(x'ff' AS TEXT)",
}
NAMELESS = {
    "a key that is text": "id = 'two'",
    "a key that is not UTF-8": "id = CAST(x'ff' AS TEXT)",
    "a fence that is not UTF-8": "fence = CAST(x'ff' AS TEXT)",
    "a queue that is a blob": "queue_name = x'64'",
    "a queue that is not UTF-8": "queue_name = CAST(x'ff' AS TEXT)",
    "an ETA that is text": "eta_us = 'soon'",
    "an ETA that is a part of a number": "eta_us = 1.5",
    "an ETA that is not UTF-8": "eta_us = CAST(x'ff' AS TEXT)",
}
LEASED = {
    "a key that is not UTF-8": "id = CAST(x'ff' AS TEXT)",
    "a fence that is text": "fence = 'x'",
    "a fence that is not UTF-8": "fence = CAST(x'ff' AS TEXT)",
}


def damage(path: Path, change: str, task_id: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(f"UPDATE hookware_task SET {change} WHERE id = ?", (task_id,)).rowcount == 1


def stored(path: Path, columns: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT {columns} FROM hookware_task ORDER BY url").fetchall()


NAMES = {
    "an end that is text": "expires_us = 'never'",
    "an end that is not UTF-8": "expires_us = CAST(x'ff' AS TEXT)",
    "a task that is text": "task_id = 'two'",
    "a task that is not UTF-8": "task_id = CAST(x'ff' AS TEXT)",
    "a name that is not UTF-8": "name = CAST(x'ff' AS TEXT)",
    "a name that is a blob": "name = x'6e32'",
    "a queue that is not UTF-8": "queue_name = CAST(x'ff' AS TEXT)",
}


def damage_name(path: Path, change: str, name: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(f"UPDATE hookware_name SET {change} WHERE name = ?", (name,)).rowcount == 1


def stored_names(path: Path) -> list[object]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT CAST(name AS BLOB) FROM hookware_name ORDER BY 1")]


class DamageContract:
    @pytest.mark.parametrize("change", NAMES.values(), ids=NAMES)
    async def test_a_damaged_name_stops_no_claim_and_no_add(self, subject: Subject, path: Path, change: str) -> None:
        await subject.add(*[new_task(task_id=n, name=f"n{n}") for n in (1, 2, 3)])
        damage_name(path, change, "n2")
        assert [task.id for task in await subject.claim()] == [1, 2, 3]
        assert await subject.store.add([new_task(task_id=10 + n, name=f"n{n}") for n in (1, 2, 4)]) == [
            AddResult.NAME_TAKEN, AddResult.NAME_TAKEN, AddResult.ADDED,
        ]  # fmt: skip

    @pytest.mark.parametrize("change", NAMES.values(), ids=NAMES)
    async def test_a_damaged_tombstone_stops_no_add(self, subject: Subject, path: Path, change: str) -> None:
        await subject.add(*[new_task(task_id=n, name=f"n{n}") for n in (1, 2)])
        for task in await subject.claim():
            await subject.settle(task.lease, Complete())
        damage_name(path, change, "n2")
        results = await subject.store.add([new_task(task_id=10 + n, name=f"n{n}") for n in (1, 2)])
        assert results == [AddResult.NAME_TOMBSTONED, AddResult.ADDED]

    @pytest.mark.parametrize("column", ["name", "queue_name"])
    async def test_a_damaged_name_stops_no_pruning(self, subject: Subject, path: Path, column: str) -> None:
        await subject.add(*[new_task(task_id=n, name=f"n{n}") for n in (1, 2, 3)])
        for task in await subject.claim(2):
            await subject.settle(task.lease, Complete())
        damage_name(path, f"{column} = CAST(x'ff' AS TEXT)", "n2")
        subject.clock.advance(TOMBSTONE_US)
        await subject.store.prune()
        assert stored_names(path) == [b"n3"]

    @pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
    async def test_an_undecodable_row_dies_and_the_others_are_claimed(
        self, subject: Subject, path: Path, change: str
    ) -> None:
        await subject.add(*[new_task(task_id=n) for n in (1, 2, 3)])
        damage(path, change, 2)
        assert [task.id for task in await subject.claim()] == [1, 3]
        damage(path, "attempt_count = 0", 2)
        dead = await subject.get(2)
        assert (dead.state, dead.dead_reason) == (State.DEAD, "undecodable")
        assert [info.id for info in await subject.store.list_tasks()] == [1, 2, 3]
        assert await subject.claim() == []

    @pytest.mark.parametrize("change", ["on_conflict = CAST(x'ff' AS TEXT)", "created_us = CAST(x'ff' AS TEXT)"])
    async def test_what_is_said_of_a_dedup_key_may_be_damaged(self, subject: Subject, path: Path, change: str) -> None:
        await subject.add(*[new_task(task_id=n, keys=Keys(dedup_key="k")) for n in (1, 2)], new_task(task_id=3))
        damage(path, change, 2)
        assert {1, 3} >= {task.id for task in await subject.claim()} > {3}

    async def test_none_gives_way_to_an_undecodable_row(self, subject: Subject, path: Path) -> None:
        await subject.add(*[new_task(task_id=n, keys=Keys(dedup_key="k")) for n in (1, 2)])
        damage(path, "headers = ''", 1)
        assert [task.id for task in await subject.claim()] == [2]

    async def test_the_limit_key_of_a_running_task_may_be_damaged(self, subject: Subject, path: Path) -> None:
        await subject.add(*[new_task("two-at-once", task_id=n, keys=Keys(limit_key="k")) for n in (1, 2)])
        await subject.claim_one()
        damage(path, "limit_key = CAST(x'ff' AS TEXT)", 1)
        assert [task.id for task in await subject.claim()] == [2]
        await subject.add(new_task("two-at-once", task_id=3))
        assert await subject.claim() == [], "it still counts for its queue"

    async def test_a_lane_in_another_spelling_hides_none(self, subject: Subject, path: Path) -> None:
        await subject.add(new_task(task_id=1), new_task(task_id=2, countdown_us=LEASE_US))
        damage(path, "lane = 'default/100'", 2)
        assert [task.id for task in await subject.claim()] == [1]
        subject.clock.advance(LEASE_US)
        assert [task.id for task in await subject.claim()] == [2]

    async def test_a_task_in_the_lane_of_another_queue_takes_no_token_of_its_own(
        self, subject: Subject, path: Path
    ) -> None:
        await subject.add(*[new_task(task_id=n) for n in (1, 2)], new_task("stopped", task_id=3))
        damage(path, "queue_name = 'stopped'", 2)
        assert [task.id for task in await subject.claim()] == [1, 2]

    async def test_an_undecodable_row_does_not_win_its_name(self, subject: Subject, path: Path) -> None:
        await subject.insert([new_task(task_id=1, name="a"), new_task(task_id=2, name="a")])
        damage(path, "headers = ''", 1)
        assert [task.id for task in await subject.claim()] == [2]

    @pytest.mark.parametrize("change", ["headers = ''", "url = CAST(x'ff' AS TEXT)"])
    async def test_the_lease_of_a_damaged_row_can_still_be_ended(
        self, subject: Subject, path: Path, change: str
    ) -> None:
        await subject.add(new_task(task_id=1), new_task(task_id=2))
        leases = {task.id: task.lease for task in await subject.claim()}
        damage(path, change, 1)
        subject.clock.advance(LEASE_US)
        assert {task.lease for task in await subject.store.expired(9)} == set(leases.values())
        assert await subject.settle(leases[1], Retry(0, None, "expired", crashed=True)) is True
        assert await subject.claim() == []
        assert (await subject.get(1)).dead_reason == "undecodable"

    @pytest.mark.parametrize("change", NAMELESS.values(), ids=NAMELESS)
    async def test_a_row_that_cannot_be_named_dies_too(self, subject: Subject, path: Path, change: str) -> None:
        await subject.add(*[new_task(task_id=n, url=f"/{n}") for n in (1, 2, 3)])
        damage(path, change, 2)
        assert [task.id for task in await subject.claim()] == [1, 3]
        assert await subject.store.next_due() in (0, None)
        assert await subject.claim() == []
        assert await subject.store.next_due() is None
        assert stored(path, "state, dead_reason") == [(1, None), (2, "undecodable"), (1, None)]
        assert [info.url for info in await subject.store.list_tasks(state=State.DEAD)] == ["/2"]

    @pytest.mark.parametrize("change", [*DAMAGES.values(), *NAMELESS.values()], ids=[*DAMAGES, *NAMELESS])
    async def test_what_was_buried_can_be_deleted(self, subject: Subject, path: Path, change: str) -> None:
        await subject.insert([new_task(task_id=n, name=f"n{n}") for n in (1, 2)])
        damage(path, change, 2)
        (good,) = await subject.claim()
        assert await subject.claim() == []
        (dead,) = await subject.store.list_tasks(state=State.DEAD)
        assert await subject.store.delete(dead.id) is True
        assert [info.id for info in await subject.store.list_tasks()] == [1]
        assert await subject.settle(good.lease, Complete()) is True

    @pytest.mark.parametrize("column", ["name", "queue_name"])
    async def test_a_task_whose_name_cannot_be_read_any_more_is_completed(
        self, subject: Subject, path: Path, column: str
    ) -> None:
        await subject.add(*[new_task(task_id=n, name=f"n{n}") for n in (1, 2)])
        leases = [task.lease for task in await subject.claim()]
        damage(path, f"{column} = CAST(x'ff' AS TEXT)", 1)
        settlements = [Settlement(lease, Complete()) for lease in leases]
        assert await subject.store.settle(settlements) == [True, True]
        assert await subject.store.list_tasks() == []
        assert await subject.store.add([new_task(name="n2")]) == [AddResult.NAME_TOMBSTONED]

    async def test_buried_tasks_get_ids_of_their_own(self, subject: Subject, path: Path) -> None:
        await subject.add(*[new_task(task_id=n) for n in (1, 2, 3)])
        for n, key in ((1, "'a'"), (2, "x'61'"), (3, "1.5")):
            damage(path, f"id = {key}", n)
        assert await subject.claim() == []
        dead = await subject.store.list_tasks(state=State.DEAD)
        assert len({info.id for info in dead}) == 3
        assert all([await subject.store.delete(info.id) for info in dead])
        assert await subject.store.list_tasks() == []

    async def test_many_that_cannot_be_named_hold_up_nobody(self, subject: Subject, path: Path) -> None:
        await subject.add(*[new_task(task_id=n, url=f"/{n}") for n in range(1, 41)])
        for n in range(1, 31):
            damage(path, f"id = CAST(x'ff{n:02x}' AS TEXT)", n)
        assert [task.id for task in await subject.claim()] == list(range(31, 41))

    @pytest.mark.parametrize("change", LEASED.values(), ids=LEASED)
    async def test_a_lease_that_nobody_can_end_makes_the_task_dead(
        self, subject: Subject, path: Path, change: str
    ) -> None:
        await subject.add(*[new_task(task_id=n, url=f"/{n}") for n in (1, 2)])
        _damaged, good = await subject.claim()
        damage(path, change, 1)
        subject.clock.advance(LEASE_US)
        assert [task.lease for task in await subject.store.expired(9)] == [good.lease]
        assert stored(path, "state, dead_reason") == [(2, "undecodable"), (1, None)]

    @pytest.mark.parametrize("end", ["NULL", "'never'", "CAST(x'ff' AS TEXT)"])
    async def test_a_lease_without_an_end_ends(self, subject: Subject, path: Path, end: str) -> None:
        await subject.add(*[new_task(task_id=n) for n in (1, 2)])
        await subject.claim()
        damage(path, f"lease_until_us = {end}", 1)
        assert await subject.store.owners() == {"me": LEASE_US}
        assert await subject.store.expired(9) == [], "its holder may live"
        subject.clock.advance(LEASE_US)
        assert [task.id for task in await subject.store.expired(9)] == [1, 2]

    async def test_a_lease_without_an_end_is_renewed_by_a_holder_who_lives(self, subject: Subject, path: Path) -> None:
        await subject.add(new_task(task_id=1))
        task = await subject.claim_one()
        damage(path, "lease_until_us = 'never'", 1)
        assert await subject.store.expired(9) == []
        subject.clock.advance(LEASE_US // 4)
        assert await subject.renew(task.lease) == {1}
        subject.clock.advance(LEASE_US - 1)
        assert await subject.store.expired(9) == []
        assert await subject.settle(task.lease, Complete()) is True

    @pytest.mark.parametrize("owner", ["x'ff'", "CAST(x'ff' AS TEXT)"])
    async def test_an_owner_that_cannot_be_read_is_none(self, subject: Subject, path: Path, owner: str) -> None:
        await subject.add(*[new_task(task_id=n) for n in (1, 2)])
        await subject.claim()
        damage(path, f"owner = {owner}", 1)
        assert await subject.store.owners() == {"me": LEASE_US, "\ufffd": LEASE_US}

    @pytest.mark.parametrize("change", ["crash_count = 2147483647", "crash_count = -9", "attempt_count = -1"])
    async def test_crashes_that_cannot_be_counted_are_not(self, subject: Subject, path: Path, change: str) -> None:
        await subject.add(new_task(task_id=1))
        task = await subject.claim_one()
        damage(path, change, 1)
        subject.clock.advance(LEASE_US)
        (expired,) = await subject.store.expired(9)
        assert expired.crash_count == 0
        assert await subject.settle(task.lease, Retry(0, None, "expired", crashed=True)) is True
        assert (await subject.get(1)).crash_count <= 2147483647
        assert await subject.claim() == []
        assert (await subject.get(1)).dead_reason == "undecodable"
