"""Ctrl-C in the middle of a re-drive: it says how to go on, that is what goes on, and none is lost or done twice."""

import json
import re
import shlex
import signal
from signal import SIGINT

import pytest

from hookware.cli.signals import interruptible
from hookware.core.lifecycle import State
from tests.cli.commands import Site
from tests.cli.shell import Shell, invoke
from tests.running import eventually

COUNT = 10_000
"""Fifty transactions: the first is seen, and the signal comes, before the last."""

PENDING, DEAD = int(State.PENDING), int(State.DEAD)


@pytest.mark.slow
def test_a_retry_that_is_interrupted_can_be_resumed_and_loses_none(shell: Shell, site: Site) -> None:
    ids = shell.world.put(State.DEAD, count=COUNT, ago=60)
    command = site.start("--db", shell.url, "tasks", "retry", "--filter", "state:dead queue:default", "--yes", "--json")
    eventually(lambda: shell.stage.rows("SELECT id FROM hookware_task WHERE state = 0 LIMIT 1"), seconds=90)
    command.send(SIGINT)
    status, log = command.ended()
    assert status == 130, log
    states = shell.states()
    done_count = list(states.values()).count(PENDING)
    assert 0 < done_count < COUNT
    said = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
    assert (said["done_count"], said["is_complete"]) == (done_count, False)
    assert f"Interrupted after {done_count:,} tasks" in log
    (again,) = re.findall(r"^  hookware (.+)$", log, re.MULTILINE)
    # One that was revived has died anew meanwhile: it is not to be revived twice by the same re-drive.
    died = next(task_id for task_id in ids if states[task_id] == PENDING)
    shell.stage.execute("UPDATE hookware_task SET state = 2, ended_us = ? WHERE id = ?", 2 * shell.world.now_us, died)
    result = invoke(*shlex.split(again))
    assert (result.exit_code, result.stdout.partition(".")[0]) == (0, f"{COUNT:,} tasks retried")
    assert "1 other one was left alone" in result.stdout
    assert shell.states() == {**dict.fromkeys(ids, PENDING), died: DEAD}


def test_a_token_of_another_call_is_refused(shell: Shell) -> None:
    shell.world.put(State.DEAD, count=2)
    (said,) = shell.json("tasks", "retry", "--filter", "state:dead", "--yes")
    words = ("tasks", "retry", "--filter", "queue:mail", "--yes", "--resume")
    assert "is of another call" in shell.refuses(*words, said["token"], status=2)
    assert "cannot be read" in shell.refuses(*words, "nonsense", status=2)


@pytest.mark.slow
def test_a_watch_prints_a_line_each_time_and_ends_at_ctrl_c(shell: Shell, site: Site) -> None:
    shell.world.put(count=3)
    command = site.start("--db", shell.url, "status", "--watch", "--every", "0.1")
    eventually(lambda: len(command.lines) >= 2, seconds=90)
    command.send(SIGINT)
    status, log = command.ended()
    assert status == 0, log
    assert all(" 3 due, 0 running, 0 dead; 0 processes run tasks; " in line for line in log.splitlines())


def test_the_second_ctrl_c_waits_for_nothing() -> None:
    with interruptible() as taken:
        assert signal.getsignal(SIGINT) == taken.take
        for seconds in (0.0, 0.9):
            taken._clock = lambda now=seconds: now  # type: ignore[misc]  # a clock of the test's
            taken.take(SIGINT, None)
        assert (taken.count, taken.status) == (1, 130)
        taken._clock = lambda: 1.1
        with pytest.raises(KeyboardInterrupt):
            taken.take(SIGINT, None)
    assert signal.getsignal(SIGINT) != taken.take
