"""Finds the ASGI app that a command line names, as servers do: `module:attribute`."""

import importlib
import inspect
import os
import sys

from starlette.types import ASGIApp

from hookware.errors import ConfigurationError


def import_app(path: str, *, is_factory: bool = False) -> ASGIApp:
    """Import the app that `path` names, from the current directory or wherever Python finds its module.

    Args:
        path: "main:app", or "package.module:holder.app".
        is_factory: the attribute is a function that makes the app.

    Raises:
        ConfigurationError: there is no such module or attribute, or it is no ASGI app. What the module itself raises
            when it is imported passes through.
    """
    module_name, separator, attributes = path.partition(":")
    if not module_name or not separator or not attributes:
        raise ConfigurationError(f'the app must be given as module:attribute, such as "main:app", got {path!r}')
    found = _imported(module_name)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ConfigurationError(
                f"the module {module_name!r} has no attribute {attributes!r}: is it spelled right?"
            )
        found = getattr(found, attribute)
    return _app(path, found, is_factory)


def _imported(name: str) -> object:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)  # a console script's own folder is there instead
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # another module, which that one imports
        raise ConfigurationError(
            f"there is no module {name!r} in {folder} or on Python's path: start in the folder of your app"
        ) from error


def _app(path: str, found: object, is_factory: bool) -> ASGIApp:
    if not callable(found):
        raise ConfigurationError(f"{path} is no ASGI app: {found!r} cannot be called")
    if is_factory:
        made: ASGIApp = found()
        return _app(f"what {path}() made", made, is_factory=False)
    if _takes_no_arguments(found):
        raise ConfigurationError(f"{path} takes no arguments, so it is no ASGI app: if it makes one, add --factory")
    app: ASGIApp = found
    return app


def _takes_no_arguments(found: object) -> bool:
    try:
        return not inspect.signature(found).parameters  # type: ignore[arg-type]  # it is callable
    except (TypeError, ValueError):  # some callables tell nobody
        return False
