"""What a command prints: data to standard output, as a table or as JSON; talk to standard error."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import NamedTuple

import click

from hookware.cli.given import Given
from hookware.cli.text import clean, plain
from hookware.core.amounts import Count


class Line(NamedTuple):
    """One thing of a list: all of it for a program, and the cells that people see."""

    data: Mapping[str, object]
    cells: Sequence[object]


class Printer:
    """Prints as the command line asks for."""

    def __init__(self, given: Given) -> None:
        self.as_json = given.json
        self._quiet = given.quiet
        self._context = click.get_current_context()

    @property
    def in_place(self) -> bool:
        """Whether a line of talk may be written over: standard error is a terminal."""
        return sys.stderr.isatty() and not self._quiet

    def say(self, text: str) -> None:
        """Talk to people, unless they want it quiet."""
        if not self._quiet:
            click.echo(clean(text), err=True)

    def say_in_place(self, text: str) -> None:
        """Write over the line of talk that was written so last."""
        if not self._quiet:
            click.echo(f"\r\x1b[K{plain(text)}", err=True, nl=False)

    def data(self, data: Mapping[str, object], text: str, *, is_styled: bool = False) -> None:
        """Print one thing: the first as JSON, or else the second, which may have colours if it says so."""
        shown = text if is_styled else clean(text)
        click.echo(as_json(data) if self.as_json else shown, color=self._context.color)

    def fields(self, data: Mapping[str, object], shown: Iterable[tuple[str, object]]) -> None:
        """Print one thing with its fields below each other."""
        if self.as_json:
            self.data(data, "")
            return
        pairs = [(name, plain(value)) for name, value in shown if value not in (None, "", ())]
        width = max((len(name) for name, _value in pairs), default=0)
        for name, value in pairs:
            click.echo(f"{name:{width}}  {value}")

    def lines(self, columns: Sequence[str], lines: Iterable[Line]) -> int:
        """Print a list; how many there were."""
        listed = list(lines)
        if self.as_json:
            for line in listed:
                click.echo(as_json(line.data))
        elif listed:
            self._table(columns, [[plain(cell) for cell in line.cells] for line in listed])
        return len(listed)

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if sys.stdout.isatty() and _print_with_rich(columns, rows, self._context.color):
            return
        widths = [max(len(row[n]) for row in [columns, *rows]) for n in range(len(columns))]
        for row in [[column.upper() for column in columns], *rows]:
            click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_with_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], color: bool | None) -> bool:
    """Print a table that fits the terminal, if rich is there to do it."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(*[column.upper() for column in columns], box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # what is no Text would be read as markup
    Console(no_color=color is False).print(table)
    return True


def as_json(data: object) -> str:
    """Write a value as JSON on one line."""
    return json.dumps(data, default=_json_value, ensure_ascii=False)


def _json_value(value: object) -> object:
    match value:
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case datetime():
            return value.isoformat()
        case Enum():
            return value.name.lower()
        case _:
            return str(value)


def count_json(count: Count) -> object:
    """Give a count as JSON has it: a number, or the text ">10000" where it was stopped."""
    return f">{count.number}" if count.more else count.number
