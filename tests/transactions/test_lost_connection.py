"""A connection that breaks in a transaction: the user sees the database's own error, and can begin anew."""

import pytest
from sqlalchemy import Engine, insert
from sqlalchemy.orm import Session
from sqlmodel import SQLModel

from hookware import Hookware, taskqueue
from tests.transactions.stored import Stored, business_table


@pytest.fixture
def hookware(engine: Engine) -> Hookware:
    SQLModel.metadata.create_all(engine)
    return Hookware(engine=engine, dispatch=False)


@pytest.mark.parametrize("flushed", [False, True])
def test_a_session_whose_connection_broke_rolls_back_and_goes_on(
    hookware: Hookware, engine: Engine, stored: Stored, flushed: bool
) -> None:
    with Session(engine) as session:
        session.execute(insert(business_table).values(key="lost"))
        taskqueue.add(url="/worker", payload=b"lost", session=session)
        if flushed:
            session.flush()
        session.connection().invalidate()
        session.rollback()
        taskqueue.add(url="/worker", payload=b"kept", session=session)
        session.commit()
    assert stored.keys() == {"kept"}


def test_a_connection_that_broke_rolls_back_and_goes_on(hookware: Hookware, engine: Engine, stored: Stored) -> None:
    with engine.connect() as connection:
        with connection.begin() as transaction:
            taskqueue.add(url="/worker", payload=b"lost", connection=connection)
            connection.invalidate()
            transaction.rollback()
        with connection.begin():
            taskqueue.add(url="/worker", payload=b"kept", connection=connection)
    assert stored.keys() == {"kept"}
