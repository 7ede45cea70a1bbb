"""The app that docs/how-to/test-your-tasks.md tests: an order, and a task that packs it."""

import os

from fastapi import FastAPI
from sqlmodel import Field, Session, SQLModel, create_engine

from hookware import Hookware, PermanentTaskFailure, task_handler

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///shop.db"))


class Order(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    item: str
    packed: bool = False


SQLModel.metadata.create_all(engine)

app = FastAPI()
app.add_middleware(Hookware, engine=engine)


@app.post("/orders")
def order(item: str) -> int:
    with Session(engine) as session:
        new = Order(item=item)
        session.add(new)
        session.flush()
        assert new.id is not None
        pack.add(order_id=new.id)
        session.commit()
        return new.id


@task_handler("/pack")
def pack(session: Session, order_id: int) -> None:
    found = session.get_one(Order, order_id, with_for_update=True)
    if not found.item:
        raise PermanentTaskFailure("there is nothing to pack")
    found.packed = True
