"""Owners: a process is called dead only when it surely is. With real processes."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from hookware import owner as owner_module
from hookware.env import Env
from hookware.owner import MAX_OWNER_LENGTH, current_owner, is_dead

OWNER_AND_WAIT = """
import sys
from hookware.env import Env
from hookware.owner import current_owner
print(current_owner(Env()), flush=True)
sys.stdin.read()
"""


def start() -> tuple["subprocess.Popen[str]", str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER_AND_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def replaced(owner: str, index: int, value: str) -> str:
    parts = owner.split("|")
    parts[index] = value
    return "|".join(parts)


@pytest.mark.slow
def test_another_process_is_alive_until_it_is_killed_and_dead_then() -> None:
    process, owner = start()
    try:
        assert not is_dead(owner)
        process.send_signal(signal.SIGSTOP)
        assert not is_dead(owner)
    finally:
        end(process)
    assert is_dead(owner)


@pytest.mark.slow
def test_a_process_that_ended_and_was_not_asked_how_is_dead() -> None:
    process, owner = start()
    try:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(owner)
    finally:
        end(process)


@pytest.mark.slow
def test_a_pid_given_out_again_is_not_its_former_owner() -> None:
    process, owner = start()
    try:
        later = replaced(owner, 5, str(int(owner.split("|")[5]) + 1))
        assert is_dead(later)
        assert not is_dead(owner)
    finally:
        end(process)


def test_this_process_is_alive_and_named_differently_each_time() -> None:
    first, second = current_owner(Env()), current_owner(Env())
    assert first != second
    assert not is_dead(first)
    assert first.split("|")[4] == str(os.getpid())


@pytest.mark.parametrize("index", [1, 2, 3], ids=["host", "boot", "pid namespace"])
@pytest.mark.parametrize("elsewhere", ["elsewhere", ""], ids=["another", "unknown"])
def test_whoever_is_elsewhere_is_never_called_dead(index: int, elsewhere: str) -> None:
    gone = replaced(current_owner(Env()), 5, "1")
    assert is_dead(gone)
    assert not is_dead(replaced(gone, index, elsewhere))


@pytest.mark.parametrize("pid", ["0", "-1", "", "x", "9" * 40])
def test_a_pid_that_is_none_is_never_called_dead(pid: str) -> None:
    assert not is_dead(replaced(current_owner(Env()), 4, pid))


@pytest.mark.parametrize("owner", ["", "n1", "a|b", "|||||", "a|b|c|d|e|f|g"])
def test_what_is_not_an_owner_of_ours_is_never_called_dead(owner: str) -> None:
    assert not is_dead(owner)


def test_an_unknown_start_time_is_never_called_dead_while_the_pid_exists() -> None:
    assert not is_dead(replaced(current_owner(Env()), 5, ""))


def test_an_owner_fits_its_column_even_with_a_long_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "h|" * 200)
    owner = current_owner(Env())
    assert len(owner) <= MAX_OWNER_LENGTH
    assert not is_dead(owner)
    assert is_dead(replaced(owner, 5, "1"))


def test_where_a_process_cannot_be_told_from_another_nobody_is_called_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_module, "_read", lambda path: "")
    monkeypatch.setattr(owner_module, "_pid_namespace", lambda: "")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    gone = replaced(replaced(current_owner(Env()), 4, str(process.pid)), 5, "1")
    assert not is_dead(gone)
