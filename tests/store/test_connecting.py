"""How hookware opens its own connections to PostgreSQL: as the user does, but never waiting for ever."""

from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

from hookware.store.sql.async_runner import own_async_engine
from hookware.store.sql.engines import own_engine
from hookware.store.sql.postgresql import CONNECT_SECONDS

URL = "postgresql+psycopg://app@localhost/app"


class SeenError(Exception):
    """Enough was seen: no connection is wanted."""


def note(engine: Engine, **changes: object) -> list[dict[str, Any]]:
    """Note with which arguments connections are opened, and let none be."""
    seen: list[dict[str, Any]] = []

    def look(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
        options.update(changes)
        seen.append(dict(options))

    def stop(*_args: object) -> None:
        raise SeenError

    event.listen(engine, "do_connect", look)
    event.listen(engine, "do_connect", stop)
    return seen


def test_connecting_has_a_limit_where_the_user_has_set_none() -> None:
    user = create_engine(URL)
    seen = note(user, password="of this minute")
    own = own_engine(user)
    for engine in (own, user):
        with pytest.raises(SeenError):
            engine.connect()
    ours, theirs = seen
    assert ours.pop("connect_timeout") == CONNECT_SECONDS
    assert ours == theirs
    assert ours["password"] == "of this minute"


@pytest.mark.parametrize(
    "user", [create_engine(URL + "?connect_timeout=7"), create_engine(URL, connect_args={"connect_timeout": 7})]
)
def test_the_users_own_limit_stays(user: Engine) -> None:
    seen = note(user)
    with pytest.raises(SeenError):
        own_engine(user).connect()
    assert [str(options["connect_timeout"]) for options in seen] == ["7"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("driver", "name"), [("psycopg", "connect_timeout"), ("asyncpg", "timeout")])
@pytest.mark.parametrize("pooled", [True, False])
async def test_an_asyncio_driver_has_it_under_its_own_name(driver: str, name: str, pooled: bool) -> None:
    user = create_async_engine(f"postgresql+{driver}://app@localhost/app")
    seen = note(user.sync_engine)
    with pytest.raises(SeenError):
        await own_async_engine(user, pooled=pooled).connect()
    assert [options[name] for options in seen] == [CONNECT_SECONDS]


def test_a_creator_of_the_users_own_is_left_alone() -> None:
    def creator() -> Any:
        raise SeenError

    with pytest.raises(SeenError):
        own_engine(create_engine(URL, creator=creator)).connect()
