"""The dotted names of functions, `package.module:function`: which functions have one, and what such a name may be."""

from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, MethodType


def why_unnamed(function: object) -> str | None:
    """Say why a callable cannot be called by a name in another process, and what to do; None if it can.

    Its own `repr` is not asked: it may show secrets.
    """
    match function:
        case FunctionType(__name__="<lambda>"):
            return "it is a lambda: write a def at the top of a module"
        case FunctionType(__qualname__=name) if "<locals>" in name:
            return "it stands inside another function, and would be lost with it: move it to the top of its module"
        case FunctionType(__qualname__=name) if "." in name:
            return "it stands in a class: write a function at the top of a module that calls it"
        case FunctionType():
            return None
        case MethodType():
            return "it is bound to an object: defer a function that takes the object's key, and loads it"
        case type():
            return "it is a class: defer a function that makes the object"
        case BuiltinFunctionType():
            return "it is built in: defer a function that calls it"
        case _:
            return "it is an object that can be called: defer a function that takes the object's key, and loads it"


def label_of(function: object) -> str:
    """Name any callable in a message."""
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def dotted_name(function: Callable[..., object]) -> str:
    """Give the name of a function at the top of a module."""
    return f"{function.__module__}:{label_of(function)}"


def split_dotted(name: str) -> tuple[str, str] | None:
    """Give the module and the function that a stored name means; None if it is no such name."""
    module, _, function = name.partition(":")
    return (module, function) if is_module_name(module) and function.isidentifier() else None


def is_module_name(name: object) -> bool:
    """Say whether this can be the name of a module or package."""
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def is_within(module: object, packages: Iterable[str]) -> bool:
    """Say whether a module is one of these, or below one of these packages."""
    return isinstance(module, str) and any(f"{module}.".startswith(f"{package}.") for package in packages)
