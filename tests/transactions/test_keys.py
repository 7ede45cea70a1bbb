"""Tasks with keys in a session of the user's: what may not wait twice is refused where it is flushed."""

from typing import Literal

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from hookware import Hookware, taskqueue
from hookware.errors import TaskAlreadyExistsError
from tests.databases import EVERY_DATABASE_ON_A_LOOP
from tests.serving import serving
from tests.transactions.stored import Stored


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("first", ["raise", "skip"])
@pytest.mark.parametrize("flushes", [False, True], ids=["one flush", "two flushes"])
async def test_a_key_that_may_not_wait_twice_is_refused(
    engine: Engine, stored: Stored, first: Literal["raise", "skip"], flushes: bool
) -> None:
    async with serving(Hookware(engine=engine, dispatch=False)):
        with Session(engine) as session:
            taskqueue.add(url="/first", key="k", on_conflict=first, session=session)
            if flushes:
                session.flush()
            taskqueue.add(url="/second", key="k", on_conflict="raise", session=session)
            with pytest.raises(TaskAlreadyExistsError, match="'k'"):
                session.commit()
    assert stored.keys() == set()


@EVERY_DATABASE_ON_A_LOOP
async def test_other_keys_and_keys_that_give_way_are_not(engine: Engine, stored: Stored) -> None:
    async with serving(Hookware(engine=engine, dispatch=False)):
        with Session(engine) as session:
            taskqueue.add("first", url="/w", key="k", on_conflict="raise", session=session)
            taskqueue.add("other", url="/w", key="l", on_conflict="raise", session=session)
            taskqueue.add("again", url="/w", key="k", on_conflict="skip", session=session)
            session.commit()
    assert stored.keys() == {"first", "other", "again"}
