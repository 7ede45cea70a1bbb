"""The processes of the systems, as the harness sees them."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.systems import environment_of
from benchmarks.systems.base import Place

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".venv-bench" / "peers"
CALL_SECONDS = 900.0


class SystemFailedError(Exception):
    """A system could not be measured; the message says why."""


def python_of(name: str) -> str:
    """Give the interpreter of a system's own environment, or this one."""
    environment = ENVIRONMENTS / environment_of(name)
    failed = environment.with_suffix(".failed")
    if failed.exists():
        raise SystemFailedError(f"it could not be installed: {failed.read_text().strip()}")
    own = environment / "bin" / "python"
    return str(own) if own.exists() else sys.executable


class Node:
    """One process of a system, driven by lines."""

    def __init__(self, name: str, place: Place, tuned: Mapping[str, int]) -> None:
        self.name = name
        words = [f"{key}={value}" for key, value in tuned.items()]
        self._errors = (ENVIRONMENTS.parent if ENVIRONMENTS.exists() else ROOT / "benchmarks") / "child.log"
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [python_of(name), "-m", "benchmarks.child", name, place.database, place.redis, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self.tally = (0, 0.0, 0.0)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._stamps: queue.Queue[float] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._answer(CALL_SECONDS)

    def call(self, do: str, *, within: float = CALL_SECONDS, **arguments: object) -> Any:
        """Let it do something; give its answer."""
        self.send(do, **arguments)
        return self.answer(within)

    def send(self, do: str, **arguments: object) -> None:
        """Let it do something, without waiting for its `answer`."""
        assert self._process.stdin is not None
        if do == "open":
            self.tally = (0, 0.0, 0.0)
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SystemFailedError("its process has ended") from None

    def answer(self, within: float = CALL_SECONDS) -> Any:
        """Wait for the answer to what was sent."""
        return self._answer(within)

    def started_at(self, within: float = 30) -> float:
        """Wait until a stamped task began; give the time."""
        try:
            return self._stamps.get(timeout=within)
        except queue.Empty:
            raise SystemFailedError(f"a task did not begin within {within:.0f} s") from None

    def end(self) -> None:
        """Let it end; if it does not, end it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=15)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()

    def _answer(self, within: float) -> Any:
        try:
            answer = self._answers.get(timeout=within)
        except queue.Empty:
            raise SystemFailedError(f"no answer within {within:.0f} s") from None
        if "error" in answer:
            raise SystemFailedError(str(answer["error"]))
        return answer["answer"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            match json.loads(line):
                case {"tally": [done, first_at, last_at]}:
                    self.tally = (done, first_at, last_at)
                case {"stamp": [_, started_at]}:
                    self._stamps.put(started_at)
                case answer:
                    self._answers.put(answer)
        last = self._errors.read_text(errors="replace").strip().rpartition("\n")[2]
        self._answers.put({"error": f"its process has ended: {last}"})


@contextmanager
def nodes(name: str, place: Place, number: int, tuned: Mapping[str, int]) -> Iterator[list[Node]]:
    """Hold some processes of a system."""
    held: list[Node] = []
    try:
        for _ in range(number):
            held.append(Node(name, place, tuned))  # noqa: PERF401 - those that have begun must end
        yield held
    finally:
        for node in held:
            node.end()


def wait_done(running: Sequence[Node], count: int, within: float = CALL_SECONDS) -> tuple[int, float]:
    """Wait until so many tasks were done by all of them; give how many were, and in how many seconds."""
    until, before = time.monotonic() + within, -1
    while (done := sum(node.tally[0] for node in running)) < count:
        if time.monotonic() > until:
            raise SystemFailedError(f"{done} of {count} tasks were done, and no more within {within:.0f} s")
        if done != before:
            until, before = time.monotonic() + min(within, 60), done
        time.sleep(0.02)
    tallies = [node.tally for node in running]
    working = [(first, last) for _, first, last in tallies if first]
    if not working:
        raise SystemFailedError("no process has run enough tasks to be timed")
    return sum(done for done, _, _ in tallies), max(last for _, last in working) - min(first for first, _ in working)
