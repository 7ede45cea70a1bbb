"""Run the Python of one page of the documentation, in order, as its reader would: `python -m tests.page PAGE`.

A block with a title goes to the end of that file, any other is executed; all of these share their names. What stands
in a comment `<!-- run ... -->` is executed too: it proves what the page says, unseen by the reader. It finds the
page's shell commands, block by block, in the list `shell`. A block after a comment `<!-- not run: reason -->` is only
compiled.
"""

import os
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

from tests.running import eventually, serve

_BLOCK = re.compile(
    r'^(?P<skip><!-- not run: [^\n]+ -->\n+)?```python(?: title="(?P<title>[^"]+)")?[^\n]*\n(?P<code>.*?)^```$'
    r"|^<!-- run\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)


def run(page: Path) -> None:
    """Run a page in the current directory; raise what its code raises, with the page's own line numbers."""
    text = page.read_text()
    shell = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {"__name__": "__main__", "eventually": eventually, "serve": serve, "shell": shell}
    sys.path.insert(0, str(Path.cwd()))
    for block in _BLOCK.finditer(text):
        kind = "hidden" if block["hidden"] is not None else "code"
        code = compile("\n" * text.count("\n", 0, block.start(kind)) + block[kind], str(page), "exec")
        if block["title"]:
            with Path(block["title"]).open("a") as file:
                file.write(block["code"] + "\n\n")
        elif not block["skip"]:
            exec(code, names)


def run_forked(page: Path, folder: Path, env: Mapping[str, str], log: Path) -> None:
    """Run a page in a process forked for it: in a folder, with warnings as errors; its output goes to `log`."""
    with log.open("w") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    os.chdir(folder)
    os.environ.update(env)
    sys.argv = [__file__, str(page)]
    warnings.simplefilter("error")
    run(page)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
