"""The arithmetic of the benchmarks' harness, and the page that it makes; no peer runs here."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.figures import interleaved, percentile, ratio, short
from benchmarks.page import about, machine, write
from benchmarks.results import Results, load


def found() -> Results:
    results = Results(measure="drain", references=["pgqueuer", "huey"], machine={"cores": 2})
    for mine, theirs in ((900.0, 300.0), (1100.0, 200.0), (5000.0, 100.0)):
        results.add("noop, 20,000 tasks", "hookware", tasks_per_second=mine, p99_ms=None)
        results.add("noop, 20,000 tasks", "pgqueuer", tasks_per_second=theirs)
    results.fail("oban", "it could not be installed: no <version> | found")
    results.fail("oban", "a later reason")
    return results


def test_the_cells_take_turns() -> None:
    assert list(interleaved("AB", 3)) == [(0, "A"), (0, "B"), (1, "A"), (1, "B"), (2, "A"), (2, "B")]


@pytest.mark.parametrize(
    ("values", "reference", "expected"),
    [
        ([3.0, 1.0, 2.0], [4.0], 0.5),
        ([1.0, 2.0], [1.0], 1.5),
        ([1.0], [], None),
        ([], [1.0], None),
        ([1.0], [0.0], None),
    ],
)
def test_a_ratio_is_one_of_medians(values: list[float], reference: list[float], expected: float | None) -> None:
    assert ratio(values, reference) == expected


@pytest.mark.parametrize(("part", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1), (0.07, 7)])
def test_a_percentile_is_a_value_of_the_nearest_rank(part: float, expected: float) -> None:
    assert percentile(reversed(range(1, 101)), part) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1234.5, "1,234"), (99.96, "100.0"), (12.34, "12.3"), (0.5, "0.50"), (0, "0.00"), (0.0123, "0.012")],
)
def test_a_number_is_short(value: float, expected: str) -> None:
    assert short(value) == expected


def test_results_keep_every_round_and_the_first_reason_of_a_failure(tmp_path: Path) -> None:
    results = found()
    assert results.of("noop, 20,000 tasks", "tasks_per_second")["hookware"] == [900, 1100, 5000]
    assert results.figures("noop, 20,000 tasks") == ["tasks_per_second"]
    assert results.failed == {"oban": "it could not be installed: no <version> | found"}
    assert load(results.save(tmp_path)) == results


def test_the_page_has_medians_ratios_failures_and_plots(tmp_path: Path) -> None:
    found().save(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "old.svg").touch()
    write(tmp_path, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| hookware | 1,100 | 5.50 |\n| pgqueuer | 200 | 1.00 |" in page
    assert r"* oban: it could not be installed: no \<version\> \| found" in page
    assert "| cores | 2 |" in page
    assert "quick run" not in page
    [plot] = re.findall(r"!\[.*\]\((.*)\)", page)
    assert [path.name for path in (tmp_path / "benchmarks").iterdir()] == [Path(plot).name]
    drawing = ET.fromstring((tmp_path / plot).read_text())
    assert [float(bar.attrib["width"]) for bar in drawing.findall(".//{*}rect")] == [92.4, 16.8]


def test_a_quick_run_says_so(tmp_path: Path) -> None:
    results = found()
    results.quick = True
    results.save(tmp_path)
    write(tmp_path, tmp_path)
    assert "quick run" in (tmp_path / "benchmarks.md").read_text()


def test_the_page_says_which_measure_ran_on_which_machine() -> None:
    results = [
        Results(measure="drain", references=[], machine={"processor": "fast", "cores": 2}),
        Results(measure="web", references=[], machine={"processor": "slow", "cores": 2}),
    ]
    text = machine(results)
    assert "| processor | drain: fast; web: slow |" in text
    assert "| cores | 2 |" in text


def test_a_measure_says_what_it_is_without_its_command() -> None:
    said = about("start")
    assert said.title == "From the commit to the handler"
    assert said.lower_is_better
    assert "python -m" not in said.text
