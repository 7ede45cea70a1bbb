"""The same in coroutines: AsyncClient with ASGITransport, an AsyncEngine, trio, and a lifespan in the same loop."""

from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from hookware.loops import Loops
from hookware.processing import Processing
from hookware.testing import HandlerFailedError, rehearse
from tests.databases import Database
from tests.serving import serving
from tests.testing.site import Site, async_site


@pytest.fixture
def site(database: Database) -> Site:
    return Site(database.engine())


def _giving(session: AsyncSession) -> Callable[[], AsyncSession]:
    return lambda: session


async def http(app: object) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client that runs no lifespan."""
    transport = httpx2.ASGITransport(app=app)  # type: ignore[arg-type]  # an ASGI app
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_a_client_without_a_lifespan(site: Site) -> None:
    with rehearse() as tasks:
        async for client in http(site.app):
            await client.post("/add?url=/once&key=a")
            await tasks.assert_added_async(url="/once", params={"key": "a"})
            await tasks.assert_none_added_async(url="/again")
            assert len(await tasks.list_async()) == 1
            tasks.fail()
            assert (await tasks.run_async()).ok == 1
            await client.post("/add?url=/again&key=b")
            assert (await tasks.deliver_twice_async("/again")).crashed == 1
            assert await tasks.run_next_async() is None
    assert site.effects() == ["a", "b", "b"]
    site.engine.dispose()


async def test_what_blocks_is_refused_in_a_coroutine() -> None:
    with rehearse() as tasks:
        for name in ("run", "run_next", "list", "added", "assert_added", "deliver_twice"):
            with pytest.raises(RuntimeError, match=r"write `await tasks\.\w+_async"):
                getattr(tasks, name)()


async def test_inline_runs_before_the_client_goes_on(site: Site) -> None:
    with rehearse("inline"):
        async for client in http(site.app):
            await client.post("/add?url=/once&key=a")
            assert site.effects() == ["a"]
            with pytest.raises(HandlerFailedError):
                await client.post("/add?url=/broken")
    site.engine.dispose()


async def test_a_lifespan_in_the_same_loop_is_held_and_goes_on(site: Site) -> None:
    async with serving(site.app):
        [loops] = [each for each in Loops.made if each.outbox.sync_engine is site.engine]
        with rehearse() as tasks:
            async for client in http(site.app):
                await client.post("/add?url=/once&key=a")
                assert not isinstance(loops.processing, Processing)
                assert site.handled == []
                assert (await tasks.run_async()).ok == 1
        with rehearse("live") as tasks:
            async for client in http(site.app):
                await client.post("/add?url=/once&key=b")
                assert (await tasks.run_async()).ok == 1
    assert site.effects() == ["a", "b"]
    site.engine.dispose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    "database", ["sqlite+aiosqlite", pytest.param("postgresql+asyncpg", marks=pytest.mark.postgres)], indirect=True
)
async def test_an_async_engine_also_within_a_transaction(database: Database) -> None:
    engine = database.async_engine()
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE effect (key VARCHAR(20))"))
    app, (api, get_session) = async_site(engine)
    with rehearse() as tasks:
        async with serving(app):
            async for client in http(app):
                await client.post("/add?key=a")
                tasks.crash()
                assert (await tasks.run_async()).ok == 1
                async with engine.connect() as connection:
                    outer = await connection.begin()
                    session = AsyncSession(connection, join_transaction_mode="create_savepoint")
                    api.dependency_overrides[get_session] = _giving(session)
                    with tasks.within(connection):
                        await client.post("/add?key=b")
                        await tasks.assert_added_async(params={"key": "b"})
                        assert (await tasks.run_async()).ok == 1
                        assert len((await session.execute(text("SELECT key FROM effect"))).all()) == 2
                    await session.close()
                    await outer.rollback()
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT key FROM effect"))).scalars().all() == ["a"]
    await engine.dispose()
