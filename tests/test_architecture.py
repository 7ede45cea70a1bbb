"""The laws of the code, as tests: directions of imports, sizes, words, and what is public."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import hookware

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "hookware").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
VERIFICATION = sorted((ROOT / "verification").rglob("*.py"))
SOURCES = [
    *PACKAGE,
    *TESTS,
    *VERIFICATION,
    *sorted((ROOT / "examples").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
]

FORBIDDEN_WORDS = {"actor", "backend", "broker", "helper", "job", "jobs", "manager", "service", "util", "utils"}
MOST_BODY_LINES = 40
MOST_FILE_LINES = 400
MOST_TEST_FILE_LINES = 700
NAMES_OF_OTHERS = {"anyio_backend"}
OPTIONAL_MODULES = {  # they need extras
    "hookware.cli",
    "hookware.crontab",
    "hookware.dashboard",
    "hookware.store.sql.async_runner",
    "hookware.yaml_nodes",
    "rich.console",
    "rich.table",
    "rich.text",
    "sqlalchemy.ext.asyncio",
    "sqlmodel.ext.asyncio.session",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(parse(path)) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Count the lines of a function after its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    last = function.body[-1].end_lineno
    assert last is not None
    return last - body[0].lineno + 1 if body else 0


def defined_names(tree: ast.Module) -> Iterator[str]:
    """Give every name that the file itself chooses: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def words(name: str) -> set[str]:
    """Split `snake_case` and `CamelCase` into lower-case words."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


@pytest.mark.slow
def test_imports_keep_the_contracts_of_pyproject() -> None:
    # In a process of its own: the linter's set-up of logging would silence hookware's log for the tests that follow.
    command = [sys.executable, "-c", "from importlinter import cli; cli.lint_imports_command()", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "hookware" / "core").glob("*.py")), ids=name_of)
def test_core_imports_only_the_standard_library_and_itself(path: Path) -> None:
    foreign = [
        name
        for name in imported(parse(path))
        if not name.startswith("hookware.core") and name.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert foreign == []


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_only_imports_of_optional_modules_hide_in_functions(path: Path) -> None:
    hidden = {name for function in functions(path) for name in imported(function)}
    assert hidden - OPTIONAL_MODULES == set()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_and_files_are_short(path: Path) -> None:
    long = {f.name: body_lines(f) for f in functions(path) if body_lines(f) > MOST_BODY_LINES}
    assert long == {}
    most = MOST_TEST_FILE_LINES if path in TESTS else MOST_FILE_LINES
    assert len(path.read_text().splitlines()) <= most


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_words_are_the_ones_of_the_glossary(path: Path) -> None:
    bad = {name for name in defined_names(parse(path)) if words(name) & FORBIDDEN_WORDS} - NAMES_OF_OTHERS
    assert bad == set()
    assert not words(path.stem) & FORBIDDEN_WORDS


@pytest.mark.parametrize("path", [p for p in TESTS if "crash" not in p.parts], ids=name_of)
def test_tests_neither_sleep_nor_mock(path: Path) -> None:
    tree = parse(path)
    mocks = [name for name in imported(tree) if name.startswith(("unittest.mock", "mock"))]
    sleeps = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}
    ]
    assert (mocks, sleeps) == ([], [])


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_suppression_has_a_code_and_a_reason(path: Path) -> None:
    suppression = re.compile(r"# (noqa|type: ignore|pragma: no (cover|branch))")
    explained = re.compile(r"# (noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\]|pragma: no (cover|branch)) +(-|#) +\w+")
    lines = path.read_text().splitlines()
    assert [line for line in lines if suppression.search(line) and not explained.search(line)] == []


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_only_the_log_that_never_raises_is_written_to(path: Path) -> None:
    loggers = [
        node.lineno
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node).endswith(("getLogger", "LoggerAdapter"))
    ]
    assert loggers == [] or name_of(path) in {"hookware/log.py", "hookware/cli/dispatch.py"}  # which sets logging up


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0:
        names = listed.stdout.decode().split("\0")[:-1]
        return [path for path in map(ROOT.joinpath, names) if path.is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]  # an unpacked sdist


def test_no_file_names_a_place_of_the_machine_it_was_written_on() -> None:
    places = re.compile(rb"(?<![\w.])/(work|tmp|root|home)/|/opt/(wheels|pypi)")
    found = {name_of(path) for path in tracked_files() if places.search(path.read_bytes())}
    assert found == set()


def public_objects() -> dict[str, object]:
    return {name: getattr(hookware, name) for name in hookware.__all__}


def test_all_is_exactly_what_is_public() -> None:
    submodules = {path.stem for path in (ROOT / "hookware").iterdir()}
    public = {
        name
        for name, value in vars(hookware).items()
        if not name.startswith("_") and not (isinstance(value, ModuleType) and name in submodules)
    }
    assert public | {"deferred", "taskqueue"} == set(hookware.__all__)
    assert len(hookware.__all__) == len(set(hookware.__all__))


@pytest.mark.parametrize("name", hookware.__all__)
def test_everything_public_has_a_docstring(name: str) -> None:
    value = public_objects()[name]
    assert inspect.getdoc(value), name
    if isinstance(value, type):
        bare = [
            attribute
            for attribute, member in vars(value).items()
            if not attribute.startswith("_")
            and isinstance(member, FunctionType | property | classmethod | staticmethod)
            and not inspect.getdoc(member)
        ]
        assert bare == []


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_every_module_class_and_public_function_has_a_docstring(path: Path) -> None:
    tree = parse(path)
    bare = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | Function)
        and not node.name.startswith("_")
        and id(node) in documented_nodes(tree)
        and not ast.get_docstring(node)
    ]
    assert ast.get_docstring(tree)
    assert bare == []


def documented_nodes(tree: ast.Module) -> set[int]:
    """Give the nodes that a reader of the documentation could meet: at the top, or in a public class at the top."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    nodes = [*tree.body, *(node for holder in classes for node in holder.body)]
    return {id(node) for node in nodes if not is_overload(node)}


def is_overload(node: ast.stmt) -> bool:
    return isinstance(node, Function) and any(ast.unparse(by) == "overload" for by in node.decorator_list)


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "hookware" / "py.typed").is_file()
    assert f'version = "{hookware.__version__}"' not in (ROOT / "pyproject.toml").read_text(), "one place for it"
