"""A copy of the tree, with a bug in it. The work tree itself is never touched."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from verification.planted.bugs import Bug, CronSimulated, Simulated, Tested

ROOT = Path(__file__).parent.parent.parent
_LEFT_BEHIND = shutil.ignore_patterns(".*", "__pycache__", "site", "dist", "*.egg-info")
_MOST_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Catch:
    """What became of a planted bug: `by` says which check caught it, and how; empty: nobody did."""

    bug: Bug
    by: str
    seconds: float
    output: str


def planted_text(bug: Bug, file: str, root: Path = ROOT) -> str:
    """Give a file of the package with the bug's edits in it.

    Raises:
        ValueError: a text that is to be replaced is not there exactly once.
    """
    text = (root / "hookware" / file).read_text()
    for edit in bug.edits:
        if edit.file != file:
            continue
        if text.count(edit.old) != 1:
            raise ValueError(f"{bug.name}: hookware/{file} holds {text.count(edit.old)} times {edit.old!r}, not once")
        text = text.replace(edit.old, edit.new)
    return text


@contextmanager
def copied_tree() -> Iterator[Path]:
    """Give a copy of everything that the checks need."""
    with tempfile.TemporaryDirectory(prefix="hookware-planted-") as directory:
        copy = Path(directory) / "tree"
        shutil.copytree(ROOT, copy, ignore=_LEFT_BEHIND)
        yield copy


@contextmanager
def with_bug(bug: Bug, copy: Path) -> Iterator[None]:
    """Plant a bug in a copy, and take it out again."""
    files = {edit.file for edit in bug.edits}
    changed = {file: planted_text(bug, file) for file in files}
    try:
        for file, text in changed.items():
            (copy / "hookware" / file).write_text(text)
        yield
    finally:
        for file in files:
            shutil.copyfile(ROOT / "hookware" / file, copy / "hookware" / file)


def catch(bug: Bug, copy: Path, most_seconds: float = _MOST_SECONDS) -> Catch:
    """Plant a bug, run the check that is named for it, and say whether it caught it; one that hangs did not."""
    began = time.monotonic()
    with with_bug(bug, copy):
        try:
            match bug.caught_by:
                case Simulated():
                    by, output = _simulate(bug.caught_by, copy, most_seconds)
                case CronSimulated():
                    by, output = _simulate_cron(bug.caught_by, copy, most_seconds)
                case Tested():
                    by, output = _test(bug.caught_by, copy, most_seconds)
        except subprocess.TimeoutExpired:
            by, output = "", f"timed out after {most_seconds:g} s"
    return Catch(bug=bug, by=by, seconds=time.monotonic() - began, output=output)


def _simulate(check: Simulated, copy: Path, most_seconds: float) -> tuple[str, str]:
    options = ["--seeds", str(check.seeds), "--store", check.store, "--until", ",".join(check.invariants)]
    done = _run(copy, most_seconds, "-m", "verification", "simulation", *options, "--ledger", os.devnull)
    return _broken(f"simulation on {check.store}", check.invariants, done)


def _simulate_cron(check: CronSimulated, copy: Path, most_seconds: float) -> tuple[str, str]:
    options = ["--seeds", str(check.seeds), "--days", "12", "--nodes", "4", "--until", ",".join(check.invariants)]
    done = _run(copy, most_seconds, "-m", "verification", "cron", *options, "--ledger", os.devnull)
    return _broken("simulation of cron", check.invariants, done)


def _broken(what: str, invariants: Sequence[str], done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    for seed, complaints in re.findall(r"^BROKEN: .*--first (\d+) .*\n((?:  .*\n)+)", done.stderr, re.MULTILINE):
        for invariant in re.findall(r"^  ([IC]\d+) ", complaints, re.MULTILINE):
            if invariant in invariants:
                return f"{what}, seed {seed}: {invariant}", done.stderr
    return "", done.stdout + done.stderr


def _test(check: Tested, copy: Path, most_seconds: float) -> tuple[str, str]:
    options = ["-n", "0", "-q", "--no-header", "-p", "no:cacheprovider", "-x"]
    done = _run(copy, most_seconds, "-m", "pytest", *options, check.test, *(["-k", check.only] if check.only else []))
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    return (f"`{failed[1]}`" if done.returncode == 1 and failed else ""), done.stdout + done.stderr


def _run(copy: Path, most_seconds: float, *arguments: str) -> subprocess.CompletedProcess[str]:
    # No compiled files: two versions of one file may have the same size, and the same second.
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False,
        timeout=most_seconds,
    )  # fmt: skip
