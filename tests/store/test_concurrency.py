"""Several processes on one SQLite file: no task is claimed twice, and none is lost."""

import subprocess
import sys
from pathlib import Path

import pytest
from anyio import to_thread

from tests.store.subject import Subject, new_task

ROOT = Path(__file__).parent.parent.parent
TASK_COUNT = 600


def start(path: Path, owner: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.store.claimant", str(path), owner]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def claimed_at_once(path: Path) -> list[list[str]]:
    """Let three processes loose at the same moment; what each of them printed."""
    processes = [start(path, f"process-{n}") for n in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = []
    for process in processes:
        output, errors = process.communicate(timeout=50)
        assert (process.returncode, errors) == (0, "")
        answers.append(output.split())
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_task_is_claimed_twice_and_none_is_lost(thread_subject: Subject, path: Path) -> None:
    # Under the processes' clock these have long been due.
    tasks = [new_task(f"q{n % 3}", f"n{n}" if n % 2 else None, task_id=n + 1, eta_us=n) for n in range(TASK_COUNT)]
    await thread_subject.store.add(tasks)
    answers = await to_thread.run_sync(claimed_at_once, path)
    assert sorted(int(word) for words in answers for word in words) == [task.id for task in tasks]
    assert await thread_subject.store.list_tasks() == []
