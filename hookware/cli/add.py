"""`hookware add`: a task by hand."""

from datetime import datetime
from typing import Any

import click

from hookware import taskqueue
from hookware.cli import given
from hookware.cli.desk import Desk, run
from hookware.cli.failure import USAGE, Failure
from hookware.cli.values import moment_of, span_us
from hookware.core.queue import DEFAULT_QUEUE


@click.command(epilog="Example: hookware add /worker -p key=value --queue mail --eta 10min")
@click.argument("url")
@click.option("-p", "--param", "params", multiple=True, metavar="KEY=VALUE", help="A param; as often as you like.")
@click.option("--queue", default=DEFAULT_QUEUE, show_default=True, metavar="NAME", help="The queue.")
@click.option("--eta", metavar="WHEN", help="When it is due: in 10min, or at 2026-12-24T18:00+01:00.")
@click.option("--name", metavar="NAME", help="A name that no other task may have.")
@click.option("--method", default="POST", show_default=True, metavar="METHOD", help="The request's method.")
@click.option("--payload", metavar="TEXT", help="The body, instead of params.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header; as often as you like.")
@click.option("--key", metavar="KEY", help="Of the waiting tasks with one key, one runs.")
@click.option("--priority", type=int, default=0, show_default=True, help="A higher one begins first.")
@given.reads
def add(url: str, params: tuple[str, ...], queue: str, eta: str | None, headers: tuple[str, ...], **rest: Any) -> None:
    """Add a task for URL, a path of your app.

    It is stored when this ends; its id is printed.

    With --app the task is as your app would make it, with its codec, its queues and its deadline.
    """
    arguments: dict[str, Any] = {"url": url, **{name: value for name, value in rest.items() if value is not None}}
    if params:
        arguments["params"] = _pairs(params, "=", "-p key=value")
    if headers:
        arguments["headers"] = {
            name: value.strip() for name, value in _pairs(headers, ":", "--header name:value").items()
        }
    if eta is not None:
        arguments |= _due(eta)

    async def work(desk: Desk) -> None:
        task = await taskqueue.add_async(queue_name=queue, transactional=False, **arguments)
        desk.printer.data({"id": task.id, "name": task.name, "queue_name": queue, "url": task.url}, str(task.id))

    run(work)


def _pairs(given_texts: tuple[str, ...], sign: str, example: str) -> dict[str, str]:
    pairs: dict[str, Any] = {}
    for text in given_texts:
        name, found, value = text.partition(sign)
        if not found or not name:
            raise Failure(f"{text[:100]!r} has no {sign!r} between a name and a value: write {example}", USAGE)
        pairs[name] = value if name not in pairs else [*_several(pairs[name]), value]
    return pairs


def _several(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def _due(text: str) -> dict[str, float | datetime]:
    try:
        return {"countdown": span_us(text) / 1e6}
    except ValueError:
        pass
    try:
        return {"eta": moment_of(text)}
    except ValueError:
        raise Failure(
            f"--eta {text[:50]!r} is neither a span of time nor a time: write 10min, or 2026-12-24T18:00+01:00", USAGE
        ) from None
