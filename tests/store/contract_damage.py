"""What a SQL store must do with rows that something else has damaged."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hookware.core.lifecycle import Retry, State
from tests.store.subject import LEASE_US, Subject, new_task

DAMAGES = {
    "headers that are no JSON": "headers = '['",
    "headers of another shape": "headers = '{}'",
    "headers too deep": f"headers = '{'[' * 100_000}'",
    "unknown retry options": "retry_options = '{\"later\": 1}'",
    "a body of text": "body = 'text'",
    "text that is not UTF-8": "url = CAST(x'ff' AS TEXT)",
    "a count that is text": "attempt_count = 'many'",
    "a deadline that is text": "deadline_us = 'late'",
}


def damage(path: Path, change: str, task_id: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(f"UPDATE hookware_task SET {change} WHERE id = ?", (task_id,)).rowcount == 1


class DamageContract:
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
