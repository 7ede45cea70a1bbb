"""What users feel of the tasks in their process: how long requests take without tasks, with them, and rule off.

Three uvicorn processes serve the same FastAPI app, each with a SQLite file of its own. Requests, half of them reads
and half writes, are sent on a timetable, whether or not those before were answered, and are timed from when they
were due. In each round the scenarios take turns, so that a slow moment of the machine hits all of them.

    A  no tasks
    B  thirty tasks, each of which adds itself again without end; foreground_first=True
    C  the same with foreground_first=False

    python -m benchmarks.foreground [--kinds noop loop2 rows] [--rounds 6] [--seconds 8] [--rate 40]
"""

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ["noop", "loop2", "rows", "wait", "loop5", "thread5", "thread300"]
CHAINS = 30
SETTLING_SECONDS = 1.5
GONE_SECONDS = 6.0
"""After so long without a request, users count as gone."""


class Server:
    """One uvicorn process."""

    def __init__(self, name: str, folder: Path, *, rule: str) -> None:
        self.name = name
        self.failed_count = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        options = ["--port", str(self.port), "--log-level", "critical", "--timeout-keep-alive", "3600"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "benchmarks.foreground_app:app", *options],
            env={**os.environ, "FOREGROUND_FIRST": rule, "FOREGROUND_DATABASE": str(folder / f"{name}.db")},
            stderr=subprocess.DEVNULL,
        )
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def until_up(self) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(30):
            while True:
                try:
                    await self.ask("GET", "/read")
                    return
                except OSError:
                    await asyncio.sleep(0.1)

    async def ask(self, method: str, path: str) -> int:
        """Send one request on a connection of the pool; give the number that it answers."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(length.partition(b":")[2]))
        if not head.startswith(b"HTTP/1.1 200"):
            writer.close()  # the server does, too, after a failure
            self.failed_count += 1
            return 0
        self._idle.append((reader, writer))
        return int(body)

    async def calm(self) -> None:
        """Let the tasks end."""
        await self.ask("POST", "/load?kind=&chains=0")
        async with asyncio.timeout(60):
            while True:
                await asyncio.sleep(1)
                if not await self.ask("GET", "/settled?seconds=0.9"):
                    return

    def stop(self) -> None:
        """End it in good order."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)


@dataclass
class Sample:
    """What was seen in one scenario: latencies in seconds, by the kind of request, failures, and tasks per second."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"read": [], "write": []})
    p99_ratios: list[float] = field(default_factory=list)
    failed_count: int = 0
    task_rates: list[float] = field(default_factory=list)
    task_rates_alone: list[float] = field(default_factory=list)

    def quantile_ms(self, part: float, *kinds: str) -> float:
        """Give the latency, in milliseconds, that this part of the requests stays below."""
        chosen = sorted(second for kind in kinds or self.seconds for second in self.seconds[kind])
        return chosen[min(len(chosen) - 1, int(len(chosen) * part))] * 1000

    def add(self, other: "Sample") -> None:
        """Add what was seen in another round."""
        for kind, seconds in other.seconds.items():
            self.seconds[kind] += seconds
        self.failed_count += other.failed_count
        self.task_rates += other.task_rates


async def send_requests(server: Server, seconds: float, rate: float, seed: int) -> Sample:
    """Send requests on a timetable that the seed gives."""
    sample, lots, loop = Sample(), random.Random(seed), asyncio.get_running_loop()

    async def send(kind: str, due: float) -> None:
        await server.ask("GET" if kind == "read" else "POST", f"/{kind}")
        sample.seconds[kind].append(loop.time() - due)

    failed, due, index = server.failed_count, loop.time(), 0
    end = due + seconds
    async with asyncio.TaskGroup() as group:
        while due < end:
            await asyncio.sleep(due - loop.time())
            group.create_task(send(("read", "write")[index % 2], due))
            index += 1
            due += lots.uniform(0.5, 1.5) / rate
    sample.failed_count = server.failed_count - failed
    return sample


async def measure(server: Server, kind: str, options: argparse.Namespace, seed: int) -> Sample:
    """Measure one scenario for a while; `kind` "" is without tasks."""
    await server.ask("POST", f"/load?kind={kind}&chains={CHAINS}")
    await send_requests(server, SETTLING_SECONDS, options.rate, seed)
    sample = await send_requests(server, options.seconds, options.rate, seed)
    settled = await server.ask("GET", f"/settled?seconds={options.seconds}")
    sample.task_rates.append(settled / options.seconds)
    if kind:
        await server.calm()
    return sample


async def measure_alone(server: Server, kind: str, seconds: float) -> float:
    """Give the tasks per second while no user is there; the two requests of its own stay out of it."""
    await server.ask("POST", f"/load?kind={kind}&chains={CHAINS}")
    await asyncio.sleep(GONE_SECONDS + seconds)
    settled = await server.ask("GET", f"/settled?seconds={seconds}")
    await server.calm()
    return settled / seconds


async def compare(kind: str, options: argparse.Namespace, servers: list[Server]) -> dict[str, Sample]:
    """Measure one kind of task, round by round."""
    samples = {server.name: Sample() for server in servers}
    for number in range(options.rounds):
        p99 = {}
        for server in servers:
            sample = await measure(server, "" if server.name == "A" else kind, options, number)
            samples[server.name].add(sample)
            p99[server.name] = sample.quantile_ms(0.99)
        for name, value in p99.items():
            samples[name].p99_ratios.append(value / p99["A"])
    for _ in range(options.rounds_alone):
        for server in servers[1:]:
            samples[server.name].task_rates_alone.append(await measure_alone(server, kind, 4))
    return samples


def figures(sample: Sample, base: Sample) -> dict[str, float]:
    """Give the figures of one scenario; `base` is A."""
    return {
        "p50 ms": round(sample.quantile_ms(0.5), 1),
        "p99 ms": round(sample.quantile_ms(0.99), 1),
        "p99 read": round(sample.quantile_ms(0.99, "read"), 1),
        "p99 write": round(sample.quantile_ms(0.99, "write"), 1),
        "p50/A": round(sample.quantile_ms(0.5) / base.quantile_ms(0.5), 2),
        "p99/A": round(sample.quantile_ms(0.99) / base.quantile_ms(0.99), 2),
        "by round": round(statistics.median(sample.p99_ratios), 2),
        "failed": sample.failed_count,
        "requests": sum(map(len, sample.seconds.values())),
        "tasks/s": round(statistics.median(sample.task_rates), 1),
        "no users": round(statistics.median(sample.task_rates_alone or [0]), 1),
    }


async def run(options: argparse.Namespace, servers: list[Server]) -> dict[str, dict[str, dict[str, float]]]:
    """Measure all kinds of tasks, and print a table of each."""
    for server in servers:
        await server.until_up()
        await send_requests(server, 2, options.rate, 0)
    results = {}
    for kind in options.kinds:
        samples = await compare(kind, options, servers)
        rows = results[kind] = {name: figures(sample, samples["A"]) for name, sample in samples.items()}
        print(f"\n{kind:<10}" + "".join(f"{title:>10}" for title in rows["A"]))
        for name, row in rows.items():
            print(f"{name:<10}" + "".join(f"{value:>10}" for value in row.values()), flush=True)
    return results


def main() -> None:
    """Measure, and print tables and the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--rounds-alone", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rate", type=float, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        servers = []
        for scenario, rule in {"A": "on", "B": "on", "C": "off"}.items():
            servers.append(Server(scenario, Path(name), rule=rule))
            stack.callback(servers[-1].stop)
        results = asyncio.run(run(options, servers))
    machine = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "processors": os.cpu_count()}
    print(json.dumps({"rate": options.rate, "results": results, "machine": machine}))


if __name__ == "__main__":
    main()
