"""Make docs/explanation/benchmarks.md, and its plots, from the JSON in benchmarks/results.

python -m benchmarks.page [--results DIRECTORY] [--docs DIRECTORY]
"""

import argparse
import ast
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import ratio, short
from benchmarks.measures import ALL
from benchmarks.plots import bars
from benchmarks.results import FOLDER, Results, load

DOCS = Path(__file__).parent.parent / "docs" / "explanation"

HEAD = (Path(__file__).parent / "head.md").read_text()


@dataclass(frozen=True, kw_only=True)
class About:
    """What a measure's module says of itself; read, not imported, for that would need its packages."""

    title: str
    text: str
    plot: str
    lower_is_better: bool


def about(name: str) -> About:
    """Read a measure's module."""
    tree = ast.parse((Path(__file__).parent / "measures" / f"{name}.py").read_text())
    constants: dict[str, Any] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=constant)], value=ast.Constant(value=value)):
                constants[constant] = value
    text = re.sub(r"\n\n    .*", "", ast.get_docstring(tree) or "", flags=re.DOTALL)
    return About(
        title=constants["TITLE"],
        text=text,
        plot=constants["PLOT"],
        lower_is_better=constants.get("LOWER_IS_BETTER", False),
    )


def made(results: list[Results]) -> tuple[str, dict[str, str]]:
    """Give the page, and the plots by their names."""
    found = {each.measure: each for each in results}
    parts, plots = [HEAD], dict[str, str]()
    if any(each.quick for each in results):
        parts.append("**These are the figures of a quick run, which only shows that the harness works.**\n")
    if not results:
        parts.append("**No results are kept yet: these are the measures.**\n")
    for name in ALL:
        said = about(name)
        parts.append(f"## {said.title}\n\n{said.text}\n")
        if name in found:
            parts.append(section(found[name], said, plots))
    if results:
        parts.append(machine(results))
    return "\n".join(parts), plots


def section(results: Results, said: About, plots: dict[str, str]) -> str:
    """Give the tables of a measure; put its plots to the others."""
    parts = []
    for number, case in enumerate(results.cases(), 1):
        parts.append(f"### {said.title}: {case}\n")
        values = results.of(case, said.plot)
        if values:
            unit = said.plot.replace("_", " ")
            title = f"{case}: {unit}, {'less' if said.lower_is_better else 'more'} is better"
            file = f"{results.measure}-{number}.svg"
            spread = {name: (min(v), statistics.median(v), max(v)) for name, v in values.items()}
            order = sorted(spread, key=lambda name: spread[name][1], reverse=not said.lower_is_better)
            plots[file] = bars(title, {name: spread[name] for name in order})
            parts.append(f"![{title}](benchmarks/{file})\n")
        parts.append(table(results, case, said))
    if results.failed:
        parts.append("Not measured, or not to the end:\n")
        parts += [f"* {name}: {_escaped(why)}" for name, why in results.failed.items()]
        parts.append("")
    return "\n".join(parts)


def table(results: Results, case: str, said: About) -> str:
    """Give one table: a line for each system, its medians, and the ratios of the figure that is drawn."""
    figures = results.figures(case)
    lead = said.plot if said.plot in figures else figures[0]
    leading = results.of(case, lead)
    references = [name for name in results.references if name in leading]
    systems = dict.fromkeys(row.system for row in results.rows if row.case == case)
    heads = ["", *(figure.replace("_", " ") for figure in figures), *(f"to {name}" for name in references)]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for system in systems:
        cells = [system]
        for figure in figures:
            values = results.of(case, figure).get(system)
            cells.append(short(statistics.median(values)) if values else "")
        for reference in references:
            against = ratio(leading.get(system, []), leading[reference])
            cells.append("" if against is None else f"{against:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def machine(results: list[Results]) -> str:
    """Say what it ran on, and how each measure was run."""
    lines = ["## Machine, versions and settings\n", "| | |", "|---|---|"]
    names = results[0].machine
    lines += [f"| {name.replace('_', ' ')} | {_escaped(_of_each(name, results))} |" for name in names]
    versions: dict[str, dict[str, str]] = {}
    for each in results:
        versions.update(each.settings.get("versions", {}))
    for system, packages in versions.items():
        lines.append(f"| {system} | {', '.join(f'{name} {number}' for name, number in packages.items())} |")
    lines += ["", "| measure | rounds and settings |", "|---|---|"]
    for each in results:
        settings = {name: value for name, value in each.settings.items() if name != "versions"}
        lines.append(
            f"| {each.measure} | {_escaped(', '.join(f'{name} {value}' for name, value in settings.items()))} |"
        )
    return "\n".join([*lines, ""])


def _of_each(name: str, results: list[Results]) -> str:
    """Say what a machine had; where measures ran on several, which had what."""
    measures: dict[str, list[str]] = {}
    for each in results:
        measures.setdefault(str(each.machine.get(name)), []).append(each.measure)
    if len(measures) == 1:
        return next(iter(measures))
    return "; ".join(f"{', '.join(those)}: {value}" for value, those in measures.items())


def _escaped(text: str) -> str:
    return re.sub(r"([\\|<>\[\]*_`])", r"\\\1", " ".join(text.split()))


def write(results: Path, docs: Path) -> None:
    """Write the page and its plots; plots of an earlier run go."""
    kept = [load(path) for name in ALL if (path := results / f"{name}.json").exists()]
    page, plots = made(kept)
    folder = docs / "benchmarks"
    for old in folder.glob("*.svg"):
        old.unlink()
    (docs / "benchmarks.md").write_text(page)
    for name, plot in plots.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(plot)


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=FOLDER)
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    write(options.results, options.docs)


if __name__ == "__main__":
    main()
