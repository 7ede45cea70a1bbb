"""The command line, `hookware`: one file for each group of commands.

Read `root.py` for the commands there are, `desk.py` for what each works with, then the file of a command. Data goes to
standard output, talk to standard error. Exit status: 0 done, 1 failed, 2 usage, 3 unhealthy, 4 nothing matched.
"""

try:
    import click  # noqa: F401 - to say what is missing before anything here needs it
except ImportError as error:
    raise ImportError('the command line needs click: pip install "hookware[cli]"', name="click") from error

from hookware.cli.root import hookware

__all__ = ["hookware"]
