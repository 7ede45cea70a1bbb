"""`hookware check` alone shows what is wrong: the five planted problems, each with its sentence and the next step."""

import re

from hookware.core.lifecycle import State
from tests.cli.shell import Shell, invoke, words_of
from tests.databases import EVERY_DATABASE
from tests.insight.stored import SECOND_US


def found(shell: Shell, code: str, severity: str, *words: str) -> str:
    """Give the only finding, as people see it."""
    text = shell.does("check", *words, status=3)
    (head,) = re.findall(r"^(\w+) \[([\w-]+)\]", text, re.MULTILINE)
    assert head == (severity, code), text
    assert text.count("\n  next: ") == 1
    return words_of(text)


@EVERY_DATABASE
def test_where_nothing_is_wrong_it_says_so_and_ends_with_0(shell: Shell) -> None:
    shell.world.process()
    result = shell.run("check")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("Nothing is wrong.\n")


@EVERY_DATABASE
def test_a_paused_queue(shell: Shell) -> None:
    shell.world.process()
    shell.world.put(queue_name="mail")
    shell.does("queues", "pause", "mail")
    said = found(shell, "paused", "warning")
    assert re.search(
        r"The queue mail has been paused by \S+ on the command line for [\d.]+ s, and 1 task waits in it\.", said
    )
    assert said.endswith("next: Resume it when what it was paused for is over.")


@EVERY_DATABASE
def test_saturated_concurrency(shell: Shell) -> None:
    shell.world.process()
    shell.world.put(State.LEASED, queue_name="mail", ago=50)
    shell.world.put(queue_name="mail", ago=30)
    shell.does("queues", "set", "mail", "--max-concurrent", "1")
    said = found(shell, "concurrency", "warning")
    full = r"The queue mail is full: 1 of 1 run, the oldest for 5\d s, and 1 due task waits, the oldest for 3\d s\."
    assert re.search(full, said)


def test_saturated_concurrency_of_a_limit_that_the_app_configures(shell: Shell, app: str) -> None:
    shell.world.process()
    shell.world.put(State.LEASED, queue_name="mail", ago=50)
    shell.world.put(queue_name="mail", ago=30)
    result = shell.run("check")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "with --app main:app" in result.stderr
    result = invoke("check", "--app", app)
    assert result.exit_code == 3
    assert "The queue mail is full: 1 of 1 run" in result.stdout
    assert "--app" not in result.stderr


@EVERY_DATABASE
def test_a_wrong_url(shell: Shell) -> None:
    shell.world.process()
    shell.world.put(State.DEAD, count=3, url="/wroker", last_status=404, last_error="404 Not Found")
    said = found(shell, "wrong-url", "error")
    assert "3 tasks of queue default (3 dead) cannot be delivered. The last answer was 404" in said
    assert "/wroker" in said
    assert said.endswith("next: Then retry the dead ones: state:dead status:404.")


@EVERY_DATABASE
def test_a_clock_of_the_database_that_is_in_the_future(shell: Shell) -> None:
    for _ in range(2):
        shell.world.process(clock_offset_us=7200 * SECOND_US)
    said = found(shell, "clock", "error")
    assert re.search(r"The database's clock says [\d: -]+ UTC, which is 2 h ahead of the clocks of the processes", said)
    assert "next: Set the clock of the database's host right (NTP)" in said


@EVERY_DATABASE
def test_no_dispatcher_alive(shell: Shell) -> None:
    shell.world.put(count=2)
    shell.world.process(seen_us=shell.world.now_us - 300 * SECOND_US, host="web-7", pid=77)
    said = found(shell, "no-dispatcher", "error")
    assert "No process that runs tasks is alive: the last one, web-7 (pid 77), was last seen 5 min" in said
    assert "hookware dispatch main:app" in said.partition("next: ")[2]


def test_missing_tables(shell: Shell) -> None:
    shell.stage.execute("DROP TABLE hookware_process")
    said = found(shell, "schema", "error")
    assert "The database has no table hookware_process." in said
    assert "hookware db upgrade" in said


def test_as_json_each_finding_is_an_object(shell: Shell) -> None:
    shell.world.put()
    (finding,) = shell.json("check", status=3)
    assert (finding["severity"], finding["code"]) == ("error", "no-dispatcher")
    assert finding["sentence"].startswith("No process that runs tasks is alive")
    assert finding["next_step"]


def test_a_note_alone_is_healthy(shell: Shell) -> None:
    shell.world.process(version="1")
    shell.world.process(version="2")
    assert shell.does("check").startswith("note [versions]")


def test_quiet_prints_the_findings_only(shell: Shell) -> None:
    shell.world.process()
    result = shell.run("check", "-q")
    assert (result.exit_code, result.output) == (0, "")
