"""Who holds a lease: a process that can be told from its successor, so that a restart frees its leases at once.

Two containers may share a host name and a pid, and a pid is given out again: hence boot, namespace and start time.
"""

import os
import socket
from pathlib import Path
from typing import NamedTuple

from hookware.env import Env

MAX_OWNER_LENGTH = 200
_SEPARATOR = "|"
_STATE_FIELD = 0
_START_TIME_FIELD = 19  # of /proc/PID/stat, counted from the state, which follows the command's name


class _Owner(NamedTuple):
    token: str
    host: str
    boot_id: str
    pid_namespace: str
    pid: str
    start_time: str


def current_owner(env: Env) -> str:
    """Name this process, unlike any other that was or will be; at most 200 characters."""
    return _SEPARATOR.join(_this_process(env.new_token()))


def place_of(owner: str) -> tuple[str, int]:
    """Give the host and the process id that an owner names; "" and 0 where it names none."""
    parts = owner.split(_SEPARATOR)
    if len(parts) != len(_Owner._fields):
        return "", 0
    named = _Owner(*parts)
    return named.host, int(named.pid) if named.pid.isdecimal() else 0


def is_dead(owner: str) -> bool:
    """Say whether the process that an owner names is known to be gone; False whenever that cannot be known."""
    parts = owner.split(_SEPARATOR)
    if len(parts) != len(_Owner._fields):
        return False
    other, here = _Owner(*parts), _this_process("")
    place = (other.host, other.boot_id, other.pid_namespace)
    if place != (here.host, here.boot_id, here.pid_namespace) or not all(place):
        return False
    if not other.pid.isdecimal() or not other.start_time:
        return False
    if not _exists(int(other.pid)):
        return True
    fields = _stat(other.pid)
    if not fields:
        return False
    # A zombie has an id still, and runs nothing: its parent has not yet asked how it ended.
    return fields[_STATE_FIELD] in ("Z", "X") or fields[_START_TIME_FIELD] != other.start_time


def _this_process(token: str) -> _Owner:
    pid = str(os.getpid())
    return _Owner(
        token=token,
        host=socket.gethostname().replace(_SEPARATOR, "")[:64],
        boot_id=_read("/proc/sys/kernel/random/boot_id").strip(),
        pid_namespace=_pid_namespace(),
        pid=pid,
        start_time=_start_time(pid),
    )


def _exists(pid: int) -> bool:
    # Not by looking for /proc/PID: with the mount option hidepid, other users' processes are invisible there.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _start_time(pid: str) -> str:
    fields = _stat(pid)
    return fields[_START_TIME_FIELD] if fields else ""


def _stat(pid: str) -> list[str]:
    """Give what the kernel says of a process, from its state on; nothing where it does not say."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields if len(fields) > _START_TIME_FIELD else []


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        return ""
