"""Dotted names: which functions have one, which text is one, and what a package holds."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hookware.core.dotted import dotted_name, is_within, label_of, split_dotted, why_unnamed


def nested() -> Callable[[], None]:
    def inner() -> None:
        """Lost with the function around it."""

    return inner


def test_a_function_at_the_top_of_a_module_has_a_name() -> None:
    assert why_unnamed(json.dumps) is None
    assert dotted_name(json.dumps) == "json:dumps"
    assert split_dotted("json:dumps") == ("json", "dumps")


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda: None, "lambda"),
        (nested(), "inside another function"),
        (Path.exists, "stands in a class"),
        (Path().exists, "bound to an object"),
        (Path, "is a class"),
        (len, "built in"),
        (functools.partial(len), "an object that can be called"),
    ],
)
def test_nothing_else_has_one(function: object, why: str) -> None:
    assert why in (why_unnamed(function) or "")


def test_the_label_of_an_object_does_not_show_what_it_holds() -> None:
    assert label_of(functools.partial(print, "secret")) == "partial"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "json",
        "json:",
        ":dumps",
        "json:a.b",
        "json:a b",
        "json:a:b",
        ".json:dumps",
        "json.:dumps",
        "a..b:c",
        "é:",
    ],
)
def test_what_is_no_name(name: str) -> None:
    assert split_dotted(name) is None


@pytest.mark.parametrize("module", ["shop", "shop.tasks", "shop.tasks.mail", "other"])
def test_a_package_holds_itself_and_what_is_below(module: str) -> None:
    assert is_within(module, ["shop", "other"])


@pytest.mark.parametrize("module", ["shop_evil", "sho", "shopping.tasks", "evil.shop", "", None, 5])
def test_a_package_holds_nothing_else(module: object) -> None:
    assert not is_within(module, ["shop", "other.deep"])
