"""A command line on a database that holds what a test has put there, in this process."""

import json
import re
from typing import Any

from click.testing import CliRunner, Result

from hookware.cli import hookware
from tests.databases import Database
from tests.insight.stored import World
from tests.stage import Stage


def invoke(*words: str, answer: str | None = None, **environment: str | None) -> Result:
    """Run `hookware ...`; what it raises that is no exit fails the test."""
    result = CliRunner().invoke(hookware, words, input=answer, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


class Shell:
    """Runs `hookware --db URL ...` on a database with the rows of a `World`."""

    def __init__(self, database: Database) -> None:
        self.stage = Stage(database)
        self.world = World(self.stage)
        self.url = database.url.render_as_string(hide_password=False)

    def run(self, *words: str, answer: str | None = None) -> Result:
        """Give what a command has printed, and its exit status."""
        return invoke("--db", self.url, *words, answer=answer)

    def does(self, *words: str, status: int = 0, answer: str | None = None) -> str:
        """Give the standard output of a command that ends with this status."""
        result = self.run(*words, answer=answer)
        assert result.exit_code == status, result.output
        return result.stdout

    def json(self, *words: str, status: int = 0) -> list[Any]:
        """Give the objects that a command prints with --json."""
        return [json.loads(line) for line in self.does(*words, "--json", status=status).splitlines()]

    def refuses(self, *words: str, status: int) -> str:
        """Give the one line with which a command fails."""
        return refusal(self.run(*words), status)

    def states(self) -> dict[int, int]:
        """Give the state of each task."""
        return dict(self.stage.rows("SELECT id, state FROM hookware_task"))


def refusal(result: Result, status: int) -> str:
    """Give the one line of standard error of a command that failed with this status, and has printed no data."""
    assert (result.exit_code, result.stdout) == (status, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def words_of(text: str) -> str:
    """Give a text with single blanks, as it reads."""
    return re.sub(r"\s+", " ", text).strip()
