"""The commands: `python -m verification crash --kills 200`.

A command is a module with `add_arguments(parser)` and `run_command(asked)`, which gives the exit status; its docstring
is its help. A new one needs its line in `COMMANDS`. A campaign ends with `ledger.record(entry, asked.ledger)`.
"""

import argparse
import sys
from pathlib import Path
from types import ModuleType

from verification import ledger
from verification.chaos import campaign as chaos
from verification.chaos import outage, recovery, soak
from verification.crash import campaign as crash
from verification.limits import campaign as limits
from verification.planted import campaign as planted
from verification.simulation import campaign as simulation
from verification.simulation import cron

COMMANDS: dict[str, ModuleType] = {
    "simulation": simulation,
    "cron": cron,
    "crash": crash,
    "chaos": chaos,
    "outage": outage,
    "recovery": recovery,
    "soak": soak,
    "limits": limits,
    "planted": planted,
    "ledger": ledger,
}


def main() -> int:
    """Run the command that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m verification", description="Try to break hookware's promises.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        text = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        if module is not ledger:
            command.add_argument("--ledger", type=Path, default=ledger.LEDGER, help="where its line goes")
    asked = parser.parse_args()
    status: int = COMMANDS[asked.command].run_command(asked)
    return status


if __name__ == "__main__":
    sys.exit(main())
