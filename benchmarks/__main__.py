"""The harness: hookware beside its peers, all measures or some.

    python -m benchmarks [MEASURE ...] [--rounds 5] [--systems ...] [--quick]

What it finds is kept as JSON in benchmarks/results, or --results; `python -m benchmarks.page` makes the page of the
documentation from it. Without --postgres and --redis it starts servers of its own.
"""

from benchmarks.measures import ALL
from benchmarks.run import parser, perform


def main() -> None:
    """Run the measures that are named, or all."""
    made = parser(__doc__)
    made.add_argument("measures", nargs="*", metavar="MEASURE", help=f"of {', '.join(ALL)}; none: all")
    options = made.parse_args()
    unknown = set(options.measures) - set(ALL)
    if unknown:
        made.error(f"there is no measure {', '.join(sorted(unknown))}: there are {', '.join(ALL)}")
    perform(options.measures or ALL, options)


if __name__ == "__main__":
    main()
