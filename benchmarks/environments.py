"""Make the peers' environments, each beside that of the harness: `.venv-bench/peers/NAME`.

What a peer does not bring itself, it imports from the harness's environment, which comes after its own on the path.
One that cannot be installed leaves a file NAME.failed, and the results say so. scripts/bench calls this.
"""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from benchmarks.node import ENVIRONMENTS

_PEERS = Path(__file__).parent / "peers.txt"


def peers(text: str) -> Iterator[tuple[str, list[str]]]:
    """Read lines such as `arq: arq>=0.28`."""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, requirements = line.partition(":")
            yield name, requirements.split()


def make(name: str, requirements: list[str]) -> None:
    """Make one, unless it is there as it is written now."""
    environment, failed = ENVIRONMENTS / name, ENVIRONMENTS / f"{name}.failed"
    stamp = environment / "installed"
    if stamp.exists() and stamp.read_text() == " ".join(requirements):
        return
    shutil.rmtree(environment, ignore_errors=True)
    failed.unlink(missing_ok=True)
    print(f"installing {' '.join(requirements)}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    [packages] = environment.glob("lib/python*/site-packages")
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        failed.write_text(lines[-1].removeprefix("ERROR: ") if lines else done.stderr[-500:])
        return
    (packages / "harness.pth").write_text(sysconfig.get_path("purelib") + "\n")
    stamp.write_text(" ".join(requirements))


def main() -> None:
    """Make all of them."""
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    for name, requirements in peers(_PEERS.read_text()):
        make(name, requirements)


if __name__ == "__main__":
    main()
