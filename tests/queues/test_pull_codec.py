"""Pull tasks and a codec: workers get what was added, and what cannot be decoded stays, or is dead, as for push."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from hookware import Queue, State, TaskIdentity, taskqueue
from hookware.encryption import AesGcm
from hookware.errors import ConfigurationError, Error
from hookware.store.base import TaskInfo
from tests.databases import Database
from tests.queues.site import Site, payloads, pull, site_on
from tests.queues.sites import EVERY_SITE

OLD, NEW = {"2026": b"k" * 32}, {"2027": b"n" * 32}
BY_TAG = Queue("pull").lease_tasks_by_tag


async def add_to(database: Database, codec: AesGcm, *bodies: str, **options: Any) -> None:
    """Store pull tasks, encrypted, from a process of their own."""
    async with site_on(database, codec=codec) as site:
        await site.add("pull", *[pull(body, **options) for body in bodies])


async def change(site: Site, sql: str, **values: object) -> None:
    await site.outbox.runner.run(lambda connection: connection.execute(text(sql), values))


async def stored(site: Site) -> dict[bytes, TaskInfo]:
    return {info.body: info for info in await site.stored()}


@EVERY_SITE
class TestLeasing:
    async def test_a_worker_gets_what_was_added_and_the_database_holds_something_else(self, database: Database) -> None:
        async with site_on(database, codec=AesGcm(OLD)) as site:
            await site.add("pull", pull("the secret", name="one", tag="t"), pull("another"), pull(""))
            assert not any(b"secret" in body or b"another" in body for body in await stored(site))
            site.wait(1)
            leased = await site.lease()
        assert payloads(leased) == ["the secret", "another", ""]
        assert (leased[0].name, leased[0].tag, leased[0].headers) == ("one", "t", {})

    async def test_params_come_back_and_so_does_what_is_leased_by_tag(self, database: Database) -> None:
        async with site_on(database, codec=AesGcm(OLD)) as site:
            task = taskqueue.Task(method="PULL", params={"a": "1", "b": ["x", "y"]}, tag="t")
            await site.add("pull", task)
            site.wait(1)
            [leased] = await site.call(BY_TAG, 60, 1, "t")
        assert leased.extract_params() == {"a": "1", "b": ["x", "y"]}

    async def test_after_a_rotation_old_and_new_tasks_come_back(self, database: Database) -> None:
        await add_to(database, AesGcm(OLD), "old")
        async with site_on(database, codec=AesGcm(NEW | OLD)) as site:
            await site.add("pull", pull("new"))
            site.wait(1)
            assert payloads(await site.lease(0)) == ["old", "new"]

    async def test_a_task_from_before_the_codec_is_leased_as_it_is(self, database: Database) -> None:
        async with site_on(database) as site:
            await site.add("pull", pull("plain"))
        async with site_on(database, codec=AesGcm(OLD)) as site:
            site.wait(1)
            assert payloads(await site.lease()) == ["plain"]


@EVERY_SITE
class TestWithoutTheKey:
    @pytest.mark.parametrize("codec", [None, AesGcm(NEW)], ids=["no codec", "another key"])
    async def test_the_task_is_left_to_those_that_have_it(self, database: Database, codec: AesGcm | None) -> None:
        await add_to(database, AesGcm(OLD), "secret")
        async with site_on(database, codec=codec) as site:
            before = await stored(site)
            site.wait(1)
            with pytest.raises(ConfigurationError, match="1 due tasks of the queue 'pull' cannot be decoded here"):
                await site.lease(604_800)
            assert await stored(site) == before
        async with site_on(database, codec=AesGcm(OLD)) as site:
            site.wait(1)
            [task] = await site.lease()
            assert (task.payload, task.retry_count) == (b"secret", 1)

    async def test_it_holds_up_no_other_and_is_logged(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        await add_to(database, AesGcm(OLD), "one", "two")
        async with site_on(database, codec=AesGcm(NEW)) as site:
            await site.add("pull", pull("mine", countdown=1))
            site.wait(2)
            assert payloads(await site.lease(60, 1)) == ["mine"]
            assert "2 due tasks of the queue 'pull' cannot be decoded here" in caplog.text
            assert "'2026', which is not among those of AesGcm (2027)" in caplog.text

    async def test_by_tag_it_holds_up_no_other_either(self, database: Database) -> None:
        await add_to(database, AesGcm(OLD), "theirs", tag="t")
        async with site_on(database, codec=AesGcm(NEW)) as site:
            await site.add("pull", pull("mine", countdown=1), pull("tagged", tag="u", countdown=2))
            site.wait(3)
            assert payloads(await site.call(BY_TAG, 60, 1)) == ["mine"]
            assert payloads(await site.call(BY_TAG, 60, 1)) == ["tagged"]


async def flip(site: Site) -> None:
    for body, info in (await stored(site)).items():
        flipped = body[:-1] + bytes([body[-1] ^ 1])
        await change(site, "UPDATE hookware_task SET body = :body WHERE id = :id", body=flipped, id=info.id)


async def swap(site: Site) -> None:
    (one, first), (other, second) = (await stored(site)).items()
    await change(site, "UPDATE hookware_task SET body = :body WHERE id = :id", body=other, id=first.id)
    await change(site, "UPDATE hookware_task SET body = :body WHERE id = :id", body=one, id=second.id)


async def move(site: Site) -> None:
    await change(site, "UPDATE hookware_task SET queue_name = 'twice'")


@EVERY_SITE
@pytest.mark.parametrize("harm", [flip, swap, move])
async def test_a_payload_that_was_changed_makes_its_task_dead_and_is_given_to_nobody(
    database: Database, harm: Callable[[Site], Any]
) -> None:
    await add_to(database, AesGcm(OLD), "rosebud", "snowball")
    async with site_on(database, codec=AesGcm(OLD)) as site:
        await harm(site)
        site.wait(1)
        assert await site.lease(queue_name="twice" if harm is move else "pull") == []
        infos = await site.stored()
    assert [(info.state, info.dead_reason) for info in infos] == [(State.DEAD, "permanent")] * 2
    assert all("with the key '2026'" in str(info.last_error) for info in infos)


class Broken:
    """A codec that cannot decode, for a reason that may pass."""

    name = "broken"

    def encode(self, body: bytes, task: TaskIdentity) -> bytes:
        return body[::-1]

    def decode(self, body: bytes, task: TaskIdentity) -> bytes:
        raise ValueError(f"cannot read {body!r}")


async def test_a_codec_that_raises_leaves_the_task_and_shows_no_payload(database: Database) -> None:
    async with site_on(database, codec=Broken()) as site:
        await site.add("pull", pull("rosebud"))
        site.wait(1)
        with pytest.raises(Error, match="the codec 'broken' cannot decode the payload: ValueError") as raised:
            await site.lease()
        assert "dubesor" not in str(raised.value)
        [info] = await site.stored()
        assert (info.state, info.attempt_count) == (State.PULL, 0)
