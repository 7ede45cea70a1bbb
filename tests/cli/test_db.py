"""`hookware db`: says what is there, makes what is missing, and prints what would make it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from hookware.store.sql.schema import TABLES
from tests.cli.shell import Shell, invoke
from tests.databases import EVERY_DATABASE


def test_upgrade_makes_a_database_in_which_all_commands_work(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    plan = invoke("--db", url, "db", "upgrade", "--plan")
    assert (plan.exit_code, list(tmp_path.iterdir())) == (0, [])
    result = invoke("--db", url, "db", "upgrade")
    assert result.stdout.startswith("Made: hookware_task table, hookware_name table, ")
    assert invoke("--db", url, "db", "upgrade").stdout == "Nothing was missing.\n"
    result = invoke("--db", url, "db", "current")
    assert (result.exit_code, result.stderr) == (0, "Nothing is missing.\n")
    assert invoke("--db", url, "add", "/worker").exit_code == 0
    with closing(sqlite3.connect(":memory:")) as planned, closing(sqlite3.connect(tmp_path / "app.db")) as made:
        planned.executescript(plan.stdout)
        names = "SELECT type, name FROM sqlite_master ORDER BY name"
        assert planned.execute(names).fetchall() == made.execute(names).fetchall()


@EVERY_DATABASE
def test_what_is_missing_is_named_and_made(shell: Shell) -> None:
    assert shell.run("db", "current").exit_code == 0
    shell.world.put()
    shell.stage.execute("ALTER TABLE hookware_task DROP COLUMN progress")
    shell.stage.execute("DROP INDEX ix_hookware_task_dead")
    shell.stage.execute("DROP TABLE hookware_process")
    lines = shell.does("db", "current", status=3).splitlines()
    missing = [line.split(maxsplit=1) for line in lines[1:] if not line.endswith("there")]
    assert missing == [
        ["hookware_task", "no column progress"],
        ["hookware_task", "no index ix_hookware_task_dead"],
        ["hookware_process", "missing"],
    ]
    plan = shell.does("db", "upgrade", "--plan").split(";\n")
    assert plan[0] == "ALTER TABLE hookware_task ADD COLUMN progress TEXT"
    assert shell.run("db", "current").exit_code == 3  # a plan changes nothing
    (made,) = shell.json("db", "upgrade")
    assert [each["what"] for each in made["made"]] == ["column progress", "index ix_hookware_task_dead", "table"]
    assert shell.run("db", "current").exit_code == 0
    assert len(shell.states()) == 1
    assert shell.run("tasks", "list").exit_code == 0


def test_a_column_that_rows_would_have_to_fill_is_refused_and_nothing_is_made(shell: Shell) -> None:
    shell.world.put()
    shell.stage.execute("ALTER TABLE hookware_task DROP COLUMN crash_count")
    shell.stage.execute("DROP TABLE hookware_process")
    line = shell.refuses("db", "upgrade", status=1)
    assert line.startswith("hookware_task has no column crash_count: rows that are there would have to fill it.")
    assert "hookware_process" not in inspect(create_engine(shell.url)).get_table_names()


def test_where_alembic_is_in_charge_it_asks(shell: Shell) -> None:
    shell.stage.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    shell.stage.execute("DROP TABLE hookware_process")
    assert "alembic revision --autogenerate" in shell.run("db", "current").stderr
    result = shell.run("db", "upgrade")
    assert result.exit_code == 1
    assert "Alembic migrates this database" in result.stderr
    assert shell.run("db", "current").exit_code == 3
    shell.does("db", "upgrade", "--yes")
    assert shell.run("db", "current").exit_code == 0


@EVERY_DATABASE
def test_the_printed_statements_make_the_tables(shell: Shell) -> None:
    for table in TABLES:
        shell.stage.execute(f"DROP TABLE {table.name}")
    dialect = "sqlite" if shell.stage.database.is_sqlite else "postgresql"
    for statement in invoke("db", "sql", "--dialect", dialect).stdout.split(";\n"):
        if statement:
            shell.stage.execute(statement)
    assert shell.run("db", "current").exit_code == 0


def test_an_unknown_dialect() -> None:
    result = invoke("db", "sql", "--dialect", "oracle")
    assert result.exit_code == 2
    assert "'oracle' is not one of" in result.stderr


@pytest.mark.slow
@EVERY_DATABASE
def test_bench_measures_beside_the_tables_and_leaves_nothing(shell: Shell) -> None:
    (task_id,) = shell.world.put()
    result = shell.run("bench", "-n", "100")
    assert result.exit_code == 0, result.output
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == ["enqueue", "enqueue-100", "dispatch"]
    assert all(float(row[1].replace(",", "")) > 0 and row[2].startswith("tasks per second, ") for row in rows)
    assert shell.states() == {task_id: 0}
    if shell.stage.database.is_sqlite:
        assert [path.name for path in shell.stage.path.parent.glob("hookware_bench*")] == []
    else:
        schemas = shell.stage.rows("SELECT schema_name FROM information_schema.schemata")
        assert [name for name in schemas if name.startswith("hookware_bench")] == []
