"""What one measure found: every value of every round, kept as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


@dataclass(kw_only=True)
class Row:
    """The values of one figure of one system in one case, one of each round."""

    case: str
    system: str
    figure: str
    values: list[float] = field(default_factory=list)


@dataclass(kw_only=True)
class Results:
    """All of one measure.

    Attributes:
        measure: its name.
        references: the systems to whose medians the others are compared, those of them that a case has.
        quick: it only shows that the harness works.
        machine: what it ran on.
        settings: how it was run.
        rows: what it found.
        failed: the systems that could not be measured, and why.
    """

    measure: str
    references: list[str]
    quick: bool = False
    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, case: str, system: str, **figures: float | None) -> None:
        """Keep the figures of one run."""
        for figure, value in figures.items():
            if value is not None:
                self._row(case, system, figure).values.append(round(value, 6))

    def fail(self, system: str, why: str) -> None:
        """Note why a system has no figures, or not all of them: the first reason is the telling one."""
        self.failed.setdefault(system, why)

    def cases(self) -> list[str]:
        """Give the cases, in the order in which they came."""
        return list(dict.fromkeys(row.case for row in self.rows))

    def of(self, case: str, figure: str) -> dict[str, list[float]]:
        """Give the values of every system that has them."""
        return {row.system: row.values for row in self.rows if (row.case, row.figure) == (case, figure)}

    def figures(self, case: str) -> list[str]:
        """Give the figures of a case, in the order in which they came."""
        return list(dict.fromkeys(row.figure for row in self.rows if row.case == case))

    def save(self, folder: Path = FOLDER) -> Path:
        """Write it down, one file for each measure."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.measure}.json"
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
        return path

    def _row(self, case: str, system: str, figure: str) -> Row:
        for row in self.rows:
            if (row.case, row.system, row.figure) == (case, system, figure):
                return row
        self.rows.append(Row(case=case, system=system, figure=figure))
        return self.rows[-1]


def load(path: Path) -> Results:
    """Read what `Results.save` wrote."""
    kept = json.loads(path.read_text())
    return Results(**{**kept, "rows": [Row(**row) for row in kept["rows"]]})
