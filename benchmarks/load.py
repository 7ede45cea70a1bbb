"""A load generator: so many connections, each of which sends its next request when it has its answer.

    python -m benchmarks.load PORT REQUESTS CONNECTIONS

It prints one line of JSON: the seconds, the requests that were answered with 200, and the latencies' percentiles.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator

from benchmarks.figures import percentile
from benchmarks.handlers import keys


async def connection(port: int, waiting: Iterator[str], took: list[float]) -> int:
    """Send requests over one connection until there are none; give how many failed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    failed = 0
    for key in waiting:
        began = time.perf_counter()
        writer.write(f"POST /?key={key} HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status, *lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        await reader.readexactly(length)
        took.append(time.perf_counter() - began)
        failed += b" 200 " not in status
    writer.close()
    return failed


async def main(port: int, requests: int, connections: int) -> None:
    """Send them all."""
    waiting, took = iter(keys(requests)), list[float]()
    began = time.monotonic()
    failed = await asyncio.gather(*(connection(port, waiting, took) for _ in range(connections)))
    ended = time.monotonic()
    found = {"p50_ms": percentile(took, 0.5) * 1000, "p99_ms": percentile(took, 0.99) * 1000, "failed": sum(failed)}
    print(json.dumps({"began_at": began, "ended_at": ended, **found}))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
