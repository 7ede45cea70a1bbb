"""An app is found by the name that servers understand, and whatever is wrong with the name is said."""

import importlib
import operator
import sys
from pathlib import Path

import pytest

from hookware.errors import ConfigurationError
from hookware.import_app import import_app

CODE = """
import types

async def app(scope, receive, send): ...

class App:
    async def __call__(self, scope, receive, send): ...

def make():
    return app

def make_nothing():
    return None

def needy(settings):
    return app

instance, holder, number = App(), types.SimpleNamespace(app=app), 5
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder with modules of its own, of which nothing stays."""
    (tmp_path / "site_main.py").write_text(CODE)
    (tmp_path / "site_broken.py").write_text("import site_absent")
    (tmp_path / "site_refused.py").write_text("raise RuntimeError('not today')")
    (tmp_path / "site_package").mkdir()
    (tmp_path / "site_package" / "web.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("site_main", "site_broken", "site_refused", "site_package", "site_package.web"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize("module", ["site_main", "site_package.web"])
@pytest.mark.parametrize("attribute", ["app", "instance", "holder.app"])
def test_an_app_of_the_current_directory(module: str, attribute: str) -> None:
    found: object = import_app(f"{module}:{attribute}")
    assert found is operator.attrgetter(attribute)(sys.modules[module])


def test_a_factory_is_called_where_it_is_said_to_be_one() -> None:
    assert import_app("site_main:make", is_factory=True) is sys.modules["site_main"].app
    with pytest.raises(ConfigurationError, match=r"site_main:make takes no arguments, .* add --factory"):
        import_app("site_main:make")
    with pytest.raises(ConfigurationError, match=r"what site_main:make_nothing\(\) made is no ASGI app: None"):
        import_app("site_main:make_nothing", is_factory=True)


@pytest.mark.parametrize("path", ["", "site_main", "site_main:", ":app", "site_main.app"])
def test_the_form_of_the_name(path: str) -> None:
    with pytest.raises(ConfigurationError, match=f'given as module:attribute, such as "main:app", got {path!r}'):
        import_app(path)


@pytest.mark.parametrize("module", ["site_absent", "site_absent.web", "site_package.absent", "site_main.absent"])
def test_a_module_that_is_not_there(module: str, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"no module '{module}' in {folder} .*start in the folder of your app"):
        import_app(f"{module}:app")


@pytest.mark.parametrize("attribute", ["nope", "holder.nope"])
def test_an_attribute_that_is_not_there(attribute: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the module 'site_main' has no attribute '{attribute}'"):
        import_app(f"site_main:{attribute}")


def test_what_is_no_app() -> None:
    with pytest.raises(ConfigurationError, match="site_main:number is no ASGI app: 5 cannot be called"):
        import_app("site_main:number")


def test_what_the_module_itself_raises_is_shown_as_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'site_absent'"):
        import_app("site_broken:app")
    with pytest.raises(RuntimeError, match="not today"):
        import_app("site_refused:app")
    with pytest.raises(TypeError, match="settings"):
        import_app("site_main:needy", is_factory=True)
