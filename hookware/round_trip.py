"""Whether a value comes back from JSON as it was: some do not, and nothing would say so."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel


def comes_back(sent: object, arrived: object) -> bool:
    """Say whether `arrived` is what was sent, as far as its type lets itself be compared.

    A tuple may come back as a list, NaN is itself, and private attributes of models do not count.
    """
    parts, arrived_parts = _parts(sent), _parts(arrived)
    if parts is not None and arrived_parts is not None:
        same_kind = type(sent) is type(arrived) or isinstance(sent, Mapping | list | tuple | datetime)
        same_keys = parts.keys() == arrived_parts.keys()
        return same_kind and same_keys and all(comes_back(parts[key], arrived_parts[key]) for key in parts)
    if type(sent) is type(arrived) and type(sent).__eq__ is object.__eq__:
        return True  # nobody can tell
    return bool(sent == arrived) or (sent != sent and arrived != arrived)  # noqa: PLR0124 - NaN


def _parts(value: object) -> Mapping[Any, object] | None:
    """Give what a value is made of, by a name or place for each; None if it is compared as a whole."""
    match value:
        case BaseModel():
            return {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
        case Mapping():
            return value
        case list() | tuple():
            return dict(enumerate(value))
        case datetime() if value.tzinfo is not None:
            # As a whole, none equals a time of another zone in the hour that comes twice.
            return {"clock": value.replace(tzinfo=None, fold=0), "offset": value.utcoffset()}
        case _ if is_dataclass(value):
            return {field.name: getattr(value, field.name) for field in fields(value) if field.compare}
        case _:
            return None
