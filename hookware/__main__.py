"""`python -m hookware`, and what the console script `hookware` calls."""

import sys


def main() -> None:
    """Run the command line; without click, say how to get it."""
    try:
        from hookware.cli import hookware
    except ImportError as error:
        if error.name != "click":
            raise
        sys.exit(f"hookware: {error}")
    hookware(prog_name="hookware")


if __name__ == "__main__":
    main()
