"""`hookware init`: a main.py to begin with."""

import click

from hookware.cli import given
from hookware.cli.failure import Failure
from hookware.cli.printer import Printer

STARTER = """\
from fastapi import FastAPI
from hookware import Hookware, task_handler
from sqlmodel import Field, Session, SQLModel, create_engine

class Counter(SQLModel, table=True):
    key: str = Field(primary_key=True)
    count: int = 0

app, engine = FastAPI(), create_engine("sqlite:///app.db")
SQLModel.metadata.create_all(engine)
app.add_middleware(Hookware, engine=engine)

@task_handler("/count")  # its write and the end of its task are one transaction
def count(key: str, session: Session) -> None:
    counter = session.get(Counter, key, with_for_update=True) or Counter(key=key)
    counter.count += 1
    session.add(counter)

@app.post("/")
def increment(key: str) -> None:
    count.add(key=key)  # committed before the response leaves
"""


@click.command(epilog="Example: hookware init > main.py")
@click.option("--write", is_flag=True, help="Write it to main.py here, if there is none.")
@given.talks
def init(write: bool) -> None:
    """Print a small main.py to begin with.

    It is a FastAPI app that counts in tasks.
    """
    if not write:
        click.echo(STARTER, nl=False)
        return
    try:
        with open("main.py", "x", encoding="utf-8") as file:
            file.write(STARTER)
    except FileExistsError:
        raise Failure(
            "there is a main.py here already: move it away, or print to another file, hookware init > app.py"
        ) from None
    except OSError as error:
        raise Failure(f"main.py cannot be written here: {error}") from None
    Printer(given.Given.here()).say(
        "main.py is written. Next: pip install fastapi uvicorn, uvicorn main:app, curl -X POST 'localhost:8000/?key=a'"
    )
