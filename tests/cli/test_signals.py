"""SIGTERM and SIGINT to `hookware dispatch`, in real processes: it ends in time, and gives back what it holds."""

from signal import SIGINT, SIGTERM, Signals

import pytest

from tests.cli.commands import APP, STARTED, Command, Site
from tests.running import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PENDING = 0
GIVEN_BACK = [(PENDING, None, 0)]


def holding(site: Site, *arguments: str, url: str = "/hold", drain_seconds: float = 3600) -> Command:
    """Start a process, and have it run a task that does not end."""
    command = site.dispatch(*arguments, drain_seconds=drain_seconds)
    if "--drain" not in arguments:
        site.add(url)
    eventually(lambda: site.notes("begun"), seconds=30)
    return command


def ended_quietly(command: Command) -> int:
    status, log = command.ended()
    assert "Traceback" not in log, log
    return status


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_with_nothing_to_do_it_ends(site: Site, number: Signals) -> None:
    command = site.dispatch()
    command.send(number)
    assert ended_quietly(command) == 0
    assert command.log.splitlines()[-1].endswith("hookware: ended, no task ran")


def test_a_running_task_may_end(site: Site) -> None:
    command = holding(site)
    command.send(SIGTERM)
    command.says("SIGTERM, running tasks may end")
    site.release()
    assert ended_quietly(command) == 0
    assert site.notes("ended") == [command.pid]
    assert site.tasks() == []


def test_a_task_that_takes_longer_is_given_back(site: Site) -> None:
    command = holding(site, drain_seconds=0.2)
    command.send(SIGTERM)
    assert ended_quietly(command) == 0
    assert command.log.splitlines()[-1].endswith("hookware: ended, 1 attempt (1 given back)")
    assert site.tasks() == GIVEN_BACK


@pytest.mark.parametrize(("second", "status"), [(SIGTERM, 143), (SIGINT, 130)])
def test_a_second_signal_cuts_short_and_gives_back(site: Site, second: Signals, status: int) -> None:
    command = holding(site)
    command.send(SIGTERM)
    command.says("running tasks may end")
    command.send(second)
    assert ended_quietly(command) == status
    assert site.tasks() == GIVEN_BACK


def test_a_handler_that_cannot_be_cut_short_is_left_behind(site: Site) -> None:
    command = holding(site, url="/block", drain_seconds=0)
    command.send(SIGTERM)
    assert ended_quietly(command) == 0
    assert "handlers that do not end are left behind" in command.log
    assert site.notes("ended") == []
    assert site.tasks() == GIVEN_BACK


def test_a_third_signal_leaves_at_once_and_the_next_process_takes_over(site: Site) -> None:
    command = holding(site, url="/block")
    for words in ("running tasks may end", "are cut short and given back"):
        command.send(SIGTERM)
        command.says(words)
    command.send(SIGTERM)
    assert ended_quietly(command) == 143
    assert "hookware: ended" not in command.log
    site.release()
    again = site.start("dispatch", APP, "--drain")
    assert again.ended()[0] == 0
    assert site.notes("ended") == [again.pid]


def test_a_drain_that_is_interrupted_says_so_by_its_status(site: Site) -> None:
    site.add("/hold")
    command = holding(site, "--drain")
    command.send(SIGINT)
    command.says("SIGINT, running tasks may end")
    site.release()
    assert ended_quietly(command) == 130
    assert site.tasks() == []


def test_a_signal_while_the_app_is_imported_ends_it(site: Site) -> None:
    (site.folder / "slow_main.py").write_text(
        "print('importing', flush=True)\nimport threading\nthreading.Event().wait()"
    )
    command = site.start("dispatch", "slow_main:app", cwd=site.folder)
    command.says("importing")
    command.send(SIGINT)
    assert ended_quietly(command) == 0
    assert STARTED not in command.log


def test_an_app_that_ignores_signals_at_its_import_is_ended_all_the_same(site: Site) -> None:
    (site.folder / "stubborn_main.py").write_text(
        "import signal\nfrom hookware import Hookware\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\napp = Hookware(engine='sqlite:///app.db')"
    )
    command = site.start("dispatch", "stubborn_main:app", cwd=site.folder)
    command.says("hookware: 0 task handlers")
    command.send(SIGTERM)
    assert ended_quietly(command) == 0
