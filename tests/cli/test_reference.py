"""The page of the command line has every command, and every option of each."""

import re
from collections.abc import Iterator

import click
import pytest

from hookware.cli import hookware
from tests.running import ROOT

PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text()


def options() -> Iterator[tuple[str, str]]:
    for name, command in hookware.commands.items():
        for parameter in command.params:
            options = parameter.opts if isinstance(parameter, click.Option) else [str(parameter.human_readable_name)]
            yield from ((name, option) for option in options)


@pytest.mark.parametrize("command", hookware.commands)
def test_every_command_has_its_section(command: str) -> None:
    assert f"\n## `hookware {command}`\n" in PAGE


@pytest.mark.parametrize(("command", "option"), list(options()))
def test_every_option_is_in_its_commands_section(command: str, option: str) -> None:
    section = PAGE.split(f"\n## `hookware {command}`\n")[1].split("\n## ")[0]
    assert re.search(rf"^\| `{option}` \|", section, re.MULTILINE)
