"""The page of the command line: `python -m tests.cli.reference` writes the help of each command into its section."""

import re
from collections.abc import Iterator

import click
from click.testing import CliRunner

from hookware.cli import hookware
from tests.running import ROOT

PAGE = ROOT / "docs" / "reference" / "cli.md"


def commands(command: click.Command = hookware, path: str = "hookware") -> Iterator[tuple[str, click.Command]]:
    """Give every command with its path, `hookware` itself first."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from commands(below, f"{path} {name}")


def help_of(path: str) -> str:
    """Give what `-h` prints."""
    result = CliRunner().invoke(hookware, [*path.split()[1:], "-h"], prog_name="hookware", terminal_width=100)
    assert result.exit_code == 0
    return result.stdout


def rewritten(page: str) -> str:
    """Give the page with the help of today; a section that is missing stays so."""
    for path, _command in commands():
        section = re.search(rf"(?<=\n)##+ `{path}`\n\n```text\n(.*?)\n```\n", page, re.DOTALL)
        if section is not None:
            page = page[: section.start(1)] + help_of(path).rstrip() + page[section.end(1) :]
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
