"""The README's demonstration, pasted into a shell as it stands there: a click, kill -9, and the count arrives."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def demonstration() -> str:
    """Give the commands, with this Python in the place of `scripts/run`, and a port of our own."""
    found = re.search(r"## Pull the plug.*?```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    port = str(free_port())
    server = f"{sys.executable} -m uvicorn examples.counter_app:app --port {port}"
    return found[1].replace("scripts/run", server).replace(":8000", f":{port}")


@pytest.mark.slow
@pytest.mark.crash
def test_the_commands_of_the_readme_do_what_it_says(tmp_path: Path) -> None:
    env = {**os.environ, "COUNTER_DATABASE_URL": f"sqlite:///{tmp_path / 'counter.db'}"}
    with subprocess.Popen(
        ["bash", "-c", demonstration()],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, errors = shell.communicate(timeout=50)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    assert re.search(r"^plug-\d+: 1$", output, re.MULTILINE), output + errors
    assert shell.returncode == 0
