"""What is printed: colours only where they are wanted, tables on a terminal, progress as a line."""

import pytest
from click.testing import CliRunner

import hookware.cli.printer as printing
from hookware.cli import hookware
from hookware.cli.given import Given
from hookware.cli.meter import Meter
from hookware.cli.printer import Printer
from hookware.cli.text import cut, plain, when
from hookware.cli.values import moment_of, rate_text, span_us
from hookware.core.amounts import Count
from tests.cli.shell import Shell


@pytest.mark.parametrize(
    ("words", "environment", "colored"),
    [((), {"NO_COLOR": None}, True), (("--no-color",), {"NO_COLOR": None}, False), ((), {"NO_COLOR": "1"}, False)],
)
def test_colours(shell: Shell, words: tuple[str, ...], environment: dict[str, str | None], colored: bool) -> None:
    shell.world.put()
    command = ["--db", shell.url, "check", *words]
    result = CliRunner().invoke(hookware, command, color=True, env=environment)
    assert ("\x1b[" in result.stdout) == colored


def test_a_table_of_rich_takes_no_text_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert printing._print_with_rich(("id", "url"), [("7", "/[red]worker[/red]")], color=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["ID", "URL"],
        ["7", "/[red]worker[/red]"],
    ]


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("total", "line"),
    [
        (Count(10_000), "retry  ━━━━━━━━━━━━━━╸       7,213/10,000  412/s  eta 0:06"),
        (Count(10_000, more=True), "retry  7,213 of more than 10,000  412/s"),
    ],
)
def test_progress_is_a_line_every_5_seconds(total: Count, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with hookware.make_context("hookware", ["version"]):
        meter = Meter("retry", total, Printer(Given()), clock, begun_count=5153)
        clock.now = 4.9
        meter.show(7000)
        assert capsys.readouterr().err == ""
        clock.now = 5.0
        meter.show(7213)
        assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize(
    ("text", "us"),
    [("90", 90_000_000), ("1.5s", 1_500_000), ("10min", 600_000_000), ("2h", 7_200_000_000), ("20ms", 20_000)],
)
def test_spans(text: str, us: int) -> None:
    assert span_us(text) == us


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 s", "1e3", "٣s"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match="is no span of time: write a number and s, min, h or d"):
        span_us(text)


def test_moments() -> None:
    assert moment_of("2026-12-24T18:00+01:00").isoformat() == "2026-12-24T18:00:00+01:00"
    with pytest.raises(ValueError, match="is no time: write it like"):
        moment_of("noon")


@pytest.mark.parametrize(
    ("rate", "text"), [(None, None), (5, "5/s"), (0.5, "30/m"), (10 / 3600, "10/h"), (2 / 86_400, "2/d"), (0, "0")]
)
def test_rates(rate: float | None, text: str | None) -> None:
    assert rate_text(rate) == text


def test_texts() -> None:
    assert (plain(None), plain(True), plain("a\x1bb"), cut("a\n bc", 3)) == ("-", "yes", "a\ufffdb", "a …")
    assert when(60_000_000, 0) == "1970-01-01 00:01:00 UTC (in 1 min)"
    assert when(0, 60_000_000) == "1970-01-01 00:00:00 UTC (1 min ago)"
