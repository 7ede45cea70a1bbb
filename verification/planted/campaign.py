"""Plant bugs in a copy of the program and see each one caught: `python -m verification planted`.

Each bug has a check that is named for it: an invariant of the simulation, or a test. The table of the documentation is
written anew when all bugs have been planted; the exit status is 1 if one was not caught.
"""

import argparse
import re
import sys
from collections.abc import Iterable

from verification.ledger import PAGE
from verification.planted import cron, delivery, leases, stores
from verification.planted.bugs import Bug
from verification.planted.plant import Catch, catch, copied_tree

BUGS: tuple[Bug, ...] = (*leases.BUGS, *stores.BUGS, *delivery.BUGS, *cron.BUGS)
_BEGIN, _END = "<!-- planted: begin -->\n", "<!-- planted: end -->\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked of this command."""
    parser.add_argument("--only", default="", help="plant those only whose name holds this")
    parser.add_argument("--list", action="store_true", help="say what there is, and plant nothing")


def run_command(asked: argparse.Namespace) -> int:
    """Plant bugs one after the other, say what caught them, and give the exit status."""
    bugs = [bug for bug in BUGS if asked.only in bug.name]
    if asked.list:
        print("\n".join(f"{bug.name}: {bug.caught_by}" for bug in bugs))
        return 0
    catches = []
    with copied_tree() as copy:
        for bug in bugs:
            catches.append(caught := catch(bug, copy))
            print(f"{bug.name}: {caught.by or 'NOT CAUGHT'}, {caught.seconds:.1f} s", flush=True)
            if not caught.by:
                print(caught.output[-3000:], file=sys.stderr)
    if len(bugs) == len(BUGS):
        PAGE.write_text(page_with(catches, PAGE.read_text()))
    missed = sum(not caught.by for caught in catches)
    print(f"{len(catches) - missed} of {len(catches)} caught in {sum(caught.seconds for caught in catches):.0f} s")
    return 1 if missed else 0


def page_with(catches: Iterable[Catch], page: str) -> str:
    """Give the page with the table of these catches between its marks."""
    rows = ["| planted bug | caught by | seconds |", "|---|---|---|"]
    rows += [f"| {each.bug.name} | {each.by or '**nobody**'} | {each.seconds:.0f} |" for each in catches]
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + "".join(f"{row}\n" for row in rows) + _END + after


def names_on(page: str) -> list[str]:
    """Give the bugs that a page's table has."""
    table = page.partition(_BEGIN)[2].partition(_END)[0]
    return re.findall(r"^\| (.+?) \|", table, re.MULTILINE)[1:]
