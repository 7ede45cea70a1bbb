"""What a handler's parameters ask for: values of the task, validated by pydantic, and things that are injected."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, Unpack, get_args, get_origin, get_type_hints

import pydantic
from pydantic_core import PydanticSerializationError
from sqlalchemy.orm import Session
from starlette.requests import Request

from hookware.context import TaskContext
from hookware.core.params import decode_params
from hookware.errors import ConfigurationError, InvalidTaskError, PermanentTaskFailure
from hookware.round_trip import comes_back

_LISTS: Final = (list, tuple, set, frozenset, Sequence)
_AS_JSON: Final = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")
"""What JSON has no word for comes back as it was."""


Kind = Literal["task handler", "deferred function"]
_NAMELESS: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


class Injected(Enum):
    """What hookware gives a handler by a parameter's annotation."""

    SESSION = "Session"
    ASYNC_SESSION = "AsyncSession"
    REQUEST = "Request"
    TASK = "TaskContext"

    @property
    def with_article(self) -> str:
        """Name it in a sentence."""
        return f"{'an' if self.value[0] in 'AEIOU' else 'a'} {self.value}"


class TaskSignature:
    """The parameters of one handler, read once when it is registered.

    Args:
        function: the handler.
        names: what its annotations may mean besides the globals of its module: the locals around it.
        kind: what messages call it. A deferred function may have parameters that are filled by place only.

    Raises:
        ConfigurationError: a parameter cannot be filled from a task.
    """

    def __init__(
        self, function: Callable[..., object], names: Mapping[str, object], kind: Kind = "task handler"
    ) -> None:
        self.name = getattr(function, "__qualname__", repr(function))
        self.label = f"{kind} {self.name}"
        self._signature = inspect.signature(function)
        self._refuse_generator(function)
        hints = _hints(function, self.label, names)
        self.injected: dict[str, Injected] = {}
        self._fields: dict[str, str] = {}
        self._listed: set[str] = set()
        fields: dict[str, Any] = {}
        for parameter in self._signature.parameters.values():
            if kind == "task handler":
                self._refuse_nameless(parameter)
            annotation = hints.get(parameter.name, Any)
            injected = _injected(annotation)
            if injected is not None:
                self.injected[parameter.name] = injected
                continue
            # A name of our own, for a model refuses some names that a parameter may have; the alias is the real one.
            field = self._fields[parameter.name] = f"p{len(fields)}"
            annotation, default = _field(parameter, annotation)
            fields[field] = (Annotated[annotation, pydantic.Field(alias=parameter.name)], default)
            if _is_list(annotation):
                self._listed.add(parameter.name)
        self._model = self._model_of(fields)
        self._has_nameless = any(each.kind in _NAMELESS for each in self._signature.parameters.values())

    def asks_for(self, injected: Injected) -> bool:
        """Say whether a parameter is filled with this."""
        return injected in self.injected.values()

    def has(self, name: str) -> bool:
        """Say whether a task can carry a value of this name to the handler."""
        return name in self._fields

    def read(self, method: str, content_type: str, query_string: bytes, body: bytes) -> dict[str, object]:
        """Give the arguments that a request carries, validated.

        Raises:
            PermanentTaskFailure: they do not fit the handler; another attempt would not change that.
        """
        carried: Mapping[str, object] | None = None
        try:
            if _is_json(content_type):
                model = self._model.model_validate_json(body)
            else:
                carried = self._values(method, content_type, query_string, body)
                model = self._model.model_validate(carried)
        except pydantic.ValidationError as error:
            has = "" if carried is None else f" (the task carries: {', '.join(carried) or 'nothing'})"
            raise PermanentTaskFailure(f"the task does not fit {self.name}: {_summary(error)}{has}") from None
        except ValueError as error:
            raise PermanentTaskFailure(f"the task for {self.name} cannot be read: {error}") from error
        return {name: getattr(model, field) for name, field in self._fields.items()}

    def write(self, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
        """Give the JSON body that carries these arguments.

        Raises:
            InvalidTaskError: they do not fit the handler, or would not come back from JSON as they are.
        """
        values = self._by_name(args, kwargs)
        try:
            model = self._model.model_validate(values)
        except pydantic.ValidationError as error:
            raise InvalidTaskError(f"the arguments do not fit {self.name}: {_summary(error)}") from None
        return self._dumped(model, values)

    def bound(self, values: Mapping[str, object]) -> tuple[tuple[object, ...], Mapping[str, object]]:
        """Give the arguments of the call that fills every parameter: by name, unless some have none."""
        if not self._has_nameless:
            return (), values
        call = inspect.BoundArguments(self._signature, OrderedDict(values))
        return call.args, call.kwargs

    def _by_name(self, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Give the arguments of a call by the names of the parameters that take them."""
        parameters = [self._signature.parameters[name] for name in self._fields]
        rest = next((each.name for each in parameters if each.kind is each.VAR_POSITIONAL), None)
        others = next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), None)
        places = [name for name in self._fields if name != others]
        if rest is not None:
            places = places[: places.index(rest)]
        elif len(args) > len(places):
            raise InvalidTaskError(f"{self.name} takes {len(places)} arguments from a task, got {len(args)}")
        values: dict[str, object] = dict(zip(places, args, strict=False))
        if rest is not None and len(args) > len(places):
            values[rest] = [*args[len(places) :]]
        named = {each.name for each in parameters if each.kind not in _NAMELESS}
        more: dict[str, object] = {}
        for name, value in kwargs.items():
            taken = name in values and name in named
            if taken or name in self.injected or (name not in named and others is None):
                problem = "is given twice" if taken else "is not a parameter"
                takes = ", ".join(self._fields) or "nothing"
                raise InvalidTaskError(f"{name!r} {problem} of {self.name}, which takes {takes}")
            (values if name in named else more)[name] = value
        return values | {others: more} if others is not None and more else values

    def _dumped(self, model: pydantic.BaseModel, names: Collection[str]) -> bytes:
        """Give arguments as JSON, and see that they can be read from it again."""
        given = {self._fields[name] for name in names}
        try:
            body = model.model_dump_json(by_alias=True, include=given, round_trip=True, warnings=False).encode()
            arrived = self._model.model_validate_json(body)
        except pydantic.ValidationError as error:
            raise InvalidTaskError(_not_back(self.name, f"from JSON they do not fit it: {_summary(error)}")) from None
        except PydanticSerializationError as error:
            raise InvalidTaskError(f"an argument of {self.name} cannot travel as JSON: {error}") from None
        for name in names:
            sent, came = getattr(model, self._fields[name]), getattr(arrived, self._fields[name])
            if not comes_back(sent, came):
                raise InvalidTaskError(
                    _not_back(self.name, f"{name!r}, of type {type(sent).__qualname__}, would arrive as another value")
                )
        return body

    def _values(self, method: str, content_type: str, query_string: bytes, body: bytes) -> Mapping[str, object]:
        decoded = decode_params(method, content_type, query_string, body)
        listed = self._listed
        for name, texts in decoded.items():
            if len(texts) > 1 and name not in listed and self.has(name):
                raise ValueError(f"{name!r} comes {len(texts)} times, and takes one value: annotate it as a list")
        return {name: texts if name in listed else texts[-1] for name, texts in decoded.items()}

    def _refuse_generator(self, function: Callable[..., object]) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"{self.label} is a generator, whose body would not run: return instead of yield")

    def _refuse_nameless(self, parameter: inspect.Parameter) -> None:
        if parameter.kind in _NAMELESS:
            raise ConfigurationError(
                f"parameter {parameter} of {self.label} has no name that a task could carry: "
                "use plain named parameters, or take a TaskContext and read its body"
            )

    def _model_of(self, fields: dict[str, Any]) -> type[pydantic.BaseModel]:
        try:
            return pydantic.create_model(f"{self.name} params", __config__=_AS_JSON, **fields)
        except (pydantic.PydanticUserError, TypeError, NameError) as error:
            raise ConfigurationError(
                f"{self.label} has a parameter whose annotation cannot be validated: {error}"
            ) from error


@lru_cache(64)
def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower().endswith("json")


def _not_back(name: str, problem: str) -> str:
    return (
        f"the arguments of {name} do not come back from JSON as they are: {problem}. Annotate the parameter with its "
        "type, give its model no fields that are masked, excluded or renamed, or send the key of stored data"
    )


def _field(parameter: inspect.Parameter, annotation: Any) -> tuple[Any, object]:
    """Give the type of what a parameter takes from a task, and its default; `...` where it must be given."""
    if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return annotation, ... if parameter.default is parameter.empty else parameter.default
    several = parameter.kind is parameter.VAR_POSITIONAL
    if get_origin(annotation) is Unpack:
        return get_args(annotation)[0], () if several else {}
    return (list[annotation], []) if several else (dict[str, annotation], {})


def _hints(function: Callable[..., object], label: str, names: Mapping[str, object]) -> dict[str, Any]:
    try:
        return get_type_hints(function, localns=dict(names), include_extras=True)
    except NameError as error:
        raise ConfigurationError(f"an annotation of {label} cannot be resolved: {error}") from error


def _is_list(annotation: object) -> bool:
    """Say whether a form may carry several values for this, also where it is optional or annotated."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_list(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return any(map(_is_list, get_args(annotation)))
    return annotation in _LISTS or origin in _LISTS


def _injected(annotation: object) -> Injected | None:
    if get_origin(annotation) is Annotated:  # FastAPI's `Annotated[Session, Depends(...)]`: a session all the same
        annotation = get_args(annotation)[0]
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, Session):
        return Injected.SESSION
    if hasattr(annotation, "sync_session_class"):  # an AsyncSession, whose import needs an optional extra
        return Injected.ASYNC_SESSION
    if issubclass(annotation, Request):
        return Injected.REQUEST
    if issubclass(annotation, TaskContext):
        return Injected.TASK
    return None


def _summary(error: pydantic.ValidationError) -> str:
    problems = [f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors(include_input=False)]
    return "; ".join(problems[:5])
