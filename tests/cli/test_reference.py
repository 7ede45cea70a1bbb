"""The page of the command line has the help of every command, and every command has an example."""

import re
import shlex

import click
import pytest

from hookware.core.lifecycle import State
from tests.cli.reference import PAGE, commands, help_of
from tests.cli.shell import Shell, invoke
from tests.running import ROOT

COMMANDS = dict(commands())
GUIDE = ROOT / "docs" / "how-to" / "operate-from-the-shell.md"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_its_section_with_its_help(path: str) -> None:
    block = f"# `{path}`\n\n```text\n{help_of(path).rstrip()}\n```\n"
    assert block in PAGE.read_text(), "python -m tests.cli.reference writes it"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_a_true_example(path: str) -> None:
    _, found, example = help_of(path).rpartition("Example: ")
    assert found
    words = example.split()
    assert words[0] == "hookware"
    assert path == "hookware" or " ".join(words).startswith(path)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_says_what_it_does(path: str) -> None:
    options = [each for each in COMMANDS[path].params if isinstance(each, click.Option)]
    assert all(option.help for option in options)


def test_the_commands_of_the_guide_work_in_their_order(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKWARE_DATABASE_URL", shell.url)
    (waiting,) = shell.world.put(queue_name="mail")
    shell.world.put(State.DEAD, count=3, queue_name="mail", last_error="boom", last_status=500)
    blocks = re.findall(r"^```bash\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [
        line.partition(" ||")[0] for block in blocks for line in block.splitlines() if line.startswith("hookware ")
    ]
    assert len(lines) > 10
    for line in lines:
        result = invoke(*shlex.split(line.replace("912733831356870564", str(waiting)))[1:])
        allowed = {0, 3} if "check" in line else {0, 4} if "state:dead --limit" in line else {0}
        assert result.exit_code in allowed, (line, result.output)
