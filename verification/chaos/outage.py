"""Take PostgreSQL away from a serving process for a while, and measure what it does meanwhile and afterwards.

`python -m verification outage --seconds 60` stops the server; with `--silent` the network swallows everything instead.
Printed are the processor time, the log lines and the seconds from the database's return to the next effects.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hookware.store.sql.postgresql import ANSWER_SECONDS, CONNECT_SECONDS
from hookware.supervisor import LONGEST_DELAY_SECONDS
from tests.postgres import postgres_server
from tests.proxy import proxy_to
from verification import ledger
from verification.checker import Findings, Limits
from verification.crash.database import DRIVERS, PostgresDatabase
from verification.crash.evidence import Answers, judge
from verification.crash.site import Process, Site, site_in, wait_until

CPU_PERCENT, LINES_PER_SECOND, RETURN_SECONDS = 5.0, 1 / 10, 5.0
"""What is promised."""

SILENT_RETURN_SECONDS = CONNECT_SECONDS + LONGEST_DELAY_SECONDS + ANSWER_SECONDS
"""What is promised after silence: a connection that was begun in it is given up, and one of the user's asked."""

_OPTIONS: dict[str, Any] = {}
_LIMITS = Limits()
_SERVER_LINES = "INFO:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What was seen of one outage.

    Attributes:
        seconds: how long it was.
        cpu_percent: of one processor, while it lasted.
        lines: what hookware logged meanwhile.
        back_seconds: from the database's return to the start of a handler that was due.
        effect_seconds: the same, to an effect in the database.
        thread_count: threads of the process after it.
    """

    seconds: float
    cpu_percent: float
    lines: list[str]
    back_seconds: float
    effect_seconds: float
    thread_count: int

    def verify(self, return_seconds: float = RETURN_SECONDS) -> None:
        """Raise AssertionError on what is worse than promised."""
        assert self.cpu_percent < CPU_PERCENT, self
        assert len(self.lines) <= max(1, self.seconds * LINES_PER_SECOND), self
        assert self.back_seconds < return_seconds, self
        assert self.effect_seconds < return_seconds, self


def live_through(
    site: Site, process: Process, *, seconds: float, cut: Callable[[], None], mend: Callable[[], None]
) -> Outage:
    """Cut a process off its database, with tasks that become due meanwhile, and let it come back."""
    for url in ("/own", "/outside"):
        # The first ones let every connection be made.
        assert process.order(f"before {url}", url) == 200
        assert process.order(f"due meanwhile {url}", url, countdown=seconds / 2) == 200
    site.settled(2)
    cpu, lines, began = _cpu_seconds(process.pid), _own_lines(process), time.time()
    cut()
    time.sleep(seconds)
    lasted = time.time() - began
    cpu, lines = _cpu_seconds(process.pid) - cpu, _own_lines(process)[len(lines) :]
    mend()
    mended = time.monotonic()
    wait_until(lambda: len(site.lines("start", url="/outside")) > 1, seconds=120, what="a handler began")
    back_seconds = time.monotonic() - mended
    wait_until(lambda: len(site.effects()) > 1, seconds=120, what="an effect is there")
    effect_seconds = time.monotonic() - mended
    site.wait_until_quiet(60)
    return Outage(
        seconds=lasted, cpu_percent=100 * cpu / lasted, lines=lines, back_seconds=back_seconds,
        effect_seconds=effect_seconds, thread_count=len(os.listdir(f"/proc/{process.pid}/task")),
    )  # fmt: skip


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _own_lines(process: Process) -> list[str]:
    return [line for line in process.log.splitlines() if not line.startswith(_SERVER_LINES)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked of this command."""
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the database is away")
    parser.add_argument("--silent", action="store_true", help="the network swallows everything, and refuses nothing")
    parser.add_argument("--driver", choices=DRIVERS, default=DRIVERS[0])


def run_command(asked: argparse.Namespace) -> int:
    """Live through one outage, print what was seen, and give the exit status."""
    began = time.monotonic()
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(fsync="on"))
        proxy = stack.enter_context(proxy_to(server.port))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # A server that is stopped refuses by itself; a proxy would accept first.
        database = PostgresDatabase(server, asked.driver, port=proxy.port if asked.silent else None)
        site = stack.enter_context(site_in(directory, database))
        ways = (proxy.fall_silent, proxy.accept) if asked.silent else (lambda: server.stop("fast"), server.start)
        outage = live_through(site, site.start(**_OPTIONS), seconds=asked.seconds, cut=ways[0], mend=ways[1])
        findings = judge(site, Answers(), _LIMITS)
    ledger.record(_entry(asked, outage, findings, database.name, time.monotonic() - began), asked.ledger)
    print(
        f"away for {outage.seconds:.0f} s{' (silent)' if asked.silent else ''}: CPU {outage.cpu_percent:.2f} %, "
        f"{len(outage.lines)} log lines; the next handler began {outage.back_seconds:.2f} s after its return, the next "
        f"effect in the database came after {outage.effect_seconds:.2f} s; {outage.thread_count} threads",
        *outage.lines,
        sep="\n  ",
    )
    try:
        findings.verify()
        outage.verify(SILENT_RETURN_SECONDS if asked.silent else RETURN_SECONDS)
    except AssertionError as broken:
        print(f"BROKEN: {broken}", file=sys.stderr)
        return 1
    return 0


def _entry(asked: argparse.Namespace, outage: Outage, findings: Findings, where: str, seconds: float) -> ledger.Entry:
    return ledger.Entry(
        commit=ledger.current_commit(),
        date=ledger.now(),
        what="outage",
        where=where,
        first_seed=0,
        seed_count=1,
        node_count=1,
        hours=round(outage.seconds / 3600, 3),
        virtual=False,
        tasks=findings.committed,
        runs=findings.runs,
        kills={},
        faults={"seconds of silence" if asked.silent else "seconds without a server": round(outage.seconds)},
        violations=findings.violations,
        duplicates=findings.duplicates,
        machine=ledger.machine(),
        seconds=round(seconds, 1),
    )
