"""Walks the README, the tutorial and how-to guides as a newcomer does, command by command: `scripts/walk`.

Each page gets a fresh folder, with a fresh virtual environment, into which the package is installed from this tree. Its
files are written, and its commands typed into one shell, as the page has them; only the port and the name of the
package, which is not on PyPI, are others. Guides leave it to their readers to install what they have and to start the
app: this is done here. The first command that does not do what the page says ends the walk.

It takes minutes and a package index, and is therefore no part of the tests.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event

ROOT = Path(__file__).parent.parent
MOST_SECONDS = 300.0

_BLOCK = re.compile(
    r'^```(?P<kind>sh|json|python)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL
)
NOT_WALKED = {
    "scripts/test": "it is all the tests",
    "COUNTER_DATABASE_URL=postgresql": "it wants a PostgreSQL",
    "pip install hookware[": "as above",
}
BASICS = "pip install hookware fastapi uvicorn"
GUIDES = {
    "retries-and-dead-tasks": [BASICS],
    "deferred": [BASICS],
    "encrypt-payloads": [BASICS],
    "monitor": [BASICS],
    "dashboard": [],
}
"""The how-to guides that are walked, and what is to be done before."""

AFTERWARDS = {
    "dashboard": [
        "uvicorn main:app",
        "curl -s -H 'Authorization: Bearer '$HOOKWARE_DASHBOARD_TOKEN http://127.0.0.1:8000/_hookware/",
    ],
}
SAYS = {
    "curl -X POST 'http://127.0.0.1:8000/?": "null",
    "curl -X POST http://127.0.0.1:8000/count": "will be counted",
    "curl -X POST 'http://127.0.0.1:8000/welcome?": "You will get a mail.",
    'curl -X POST "http': "will be counted in 10",
    "curl -i -X POST": "403 Forbidden",
    "until curl -sf http": ": 1\n",
    "curl -s -H": "Nothing is wrong",
    'python -c "import sqlite3': "('apples', 1)",
}
"""What the pages say of their commands, by how these begin, beside the JSON that they show."""

MAY_FAIL = ("wait ", "kill ")


class Walker:
    """A shell in an empty folder, that commands are typed into."""

    def __init__(self, folder: Path, words: dict[str, str]) -> None:
        self.folder, self._words = folder, words
        self._log, self._done = folder / ".walk.log", folder / ".walk.done"
        with self._log.open("w") as log:
            self._shell = subprocess.Popen(
                ["bash"], cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
            )

    def type(self, command: str) -> str:
        """Type a command, wait until the shell has done it, and give what it has said."""
        for old, new in self._words.items():
            command = command.replace(old, new)
        begun, before = time.monotonic(), len(self.said())
        print(f"$ {command}", flush=True)
        self._done.unlink(missing_ok=True)
        self._tell(
            f"{command}\necho $? >{self._done}.new; mv {self._done}.new {self._done}; pwd >{self.folder}/.walk.pwd"
        )
        wait_for(self._done.exists, f"{command!r} ends")
        status, said = int(self._done.read_text()), self.said()[before:]
        print(said, f"[{time.monotonic() - begun:.1f} s]", sep="", flush=True)
        if status != 0 and not command.startswith(MAY_FAIL):
            sys.exit(f"{command!r} has failed with status {status}")
        return said

    def start(self, command: str) -> None:
        """Start a server in the background, and wait until it serves."""
        before = len(self.said())
        self.type(command if "&" in command else f"{command} & server=$!")
        wait_for(lambda: "Uvicorn running on" in self.said()[before:], f"{command!r} serves")

    def write(self, name: str, code: str) -> None:
        """Add code to the end of a file where the shell is."""
        place = self.folder / ".walk.pwd"
        with (Path(place.read_text().strip()) if place.exists() else self.folder).joinpath(name).open("a") as file:
            file.write(code + "\n\n")
        print(f"({name} written)", flush=True)

    def said(self) -> str:
        """Give all that was said so far."""
        return self._log.read_text(errors="replace")

    def leave(self) -> None:
        """End the shell, and what it has in the background."""
        self._tell("kill -9 $(jobs -p) 2>/dev/null; exit")
        self._shell.wait(timeout=30)

    def _tell(self, line: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(line + "\n")
        self._shell.stdin.flush()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true, and end the walk if it does not become so."""
    deadline = time.monotonic() + MOST_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not within {MOST_SECONDS:.0f} s: {what}")
        Event().wait(0.1)


def walk(page: str, walker: Walker, *, begin: str = "", end: str = "\\Z", serves: bool = True) -> None:
    """Do what a page says, from one place in it to another; `serves`: it says how to start the app."""
    text = (ROOT / page).read_text()
    part = text[text.index(begin) :]
    ends = re.search(end, part, re.MULTILINE)
    blocks = list(_BLOCK.finditer(part[: ends.start()] if ends else part))
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block["title"]:
            walker.write(block["title"], block["code"])
        if block["kind"] != "sh":
            continue
        shown = following["code"] if following and following["kind"] == "json" else None
        for command in commands(block["code"]):
            if command.startswith("curl") and not serves:
                step(walker, "uvicorn main:app", None)
                serves = True
            step(walker, command, shown)


def commands(code: str) -> Iterator[str]:
    """Give the commands of a block: one in each line, unless quotes go on in the next."""
    whole = ""
    for line in code.strip().splitlines():
        whole += line
        if whole and whole.count("'") % 2 == 0:
            yield whole
            whole = ""
        elif whole:
            whole += "\n"


def step(walker: Walker, command: str, shown: str | None) -> None:
    """Type one command, and hold what it says against the page."""
    why = next((why for beginning, why in NOT_WALKED.items() if command.startswith(beginning)), None)
    if why is not None:
        print(f"# {command}  (not walked: {why})", flush=True)
    elif command.startswith("uvicorn"):
        walker.start(command)
    elif shown is not None:  # "a moment later"
        wait_for(lambda: json_in(walker.type(command)) == json.loads(shown), f"{command!r} says {shown.strip()}")
    else:
        said = walker.type(command)
        for beginning, wanted in SAYS.items():
            if command.startswith(beginning) and wanted not in said:
                sys.exit(f"{command!r} does not say {wanted!r}")


def json_in(said: str) -> object:
    """Give the JSON in what curl has said, beside its progress and the server's lines."""
    found = re.search(r"\{.*?\}", said)
    return json.loads(found[0]) if found else None


def fresh(place: Path) -> dict[str, str]:
    """Make a copy of the tree, and give the words that differ from the pages'."""
    tree = place / "tree"
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        "pip install hookware ": f"pip install --quiet {tree} ",
        'pip install "hookware[': f'pip install --quiet "{tree}[',
        "uvicorn main:app": f"uvicorn main:app --port {port}",
        "scripts/run": f"scripts/run --port {port}",
        ":8000": f":{port}",
    }


def walk_guide(guide: str, before: Sequence[str], folder: Path, words: dict[str, str]) -> None:
    """Do what a how-to guide says."""
    print(f"\n== {guide}", flush=True)
    folder.mkdir()
    walker = Walker(folder, words)
    try:
        walker.type("python3 -m venv .venv && . .venv/bin/activate")
        for command in before:
            walker.type(command)
        walk(f"docs/how-to/{guide}.md", walker, serves=False)
        for command in AFTERWARDS.get(guide, ()):
            step(walker, command, None)
    finally:
        walker.leave()


def main() -> None:
    """Walk, and say how long it took."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        words = fresh(place)
        for title, page, folder, part in (
            ("README", "README.md", "readme", {"end": "^## Try it"}),
            (
                "README, with its scripts",
                "README.md",
                "tree",
                {"begin": "## Pull the plug", "end": "^## What it promises"},
            ),
            ("Tutorial", "docs/tutorial/1-counter.md", "tutorial", {}),
        ):
            print(f"\n== {title}", flush=True)
            (place / folder).mkdir(exist_ok=True)
            walker = Walker(place / folder, words)
            try:
                if folder == "readme":  # the page leaves it to the reader where to install
                    walker.type("python3 -m venv .venv && . .venv/bin/activate")
                walk(page, walker, begin=part.get("begin", ""), end=part.get("end", "\\Z"))
            finally:
                walker.leave()
        for guide, before in GUIDES.items():
            walk_guide(guide, before, place / guide, words)
    print(f"\nAll of it did what the pages say, in {time.monotonic() - begun:.0f} s.")


if __name__ == "__main__":
    main()
