"""Traces by OpenTelemetry: a span where tasks are added, and one for each delivery, linked to it.

A task may run hours later, and more than once: each attempt is a trace of its own, so that none grows without end. The
context travels in the headers of the task, and that of the attempt in those of its request: there the instrumentation
of the app goes on with it.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from hookware.core.headers import check_header, is_forbidden, is_internal
from hookware.core.lifecycle import Conflicted, Failed, Interrupted, Outcome, Succeeded
from hookware.core.task import Headers, LeasedTask, NewTask
from hookware.errors import ConfigurationError, describe
from hookware.events import loggable, one_line
from hookware.log import fields_of, log_of
from hookware.store.sql.outbox import Outbox
from hookware.tracing import Trace

try:
    from opentelemetry import context as contexts
    from opentelemetry import propagate, trace
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
except ImportError as error:
    raise ImportError('traces need opentelemetry-api: pip install "hookware[otel]"', name="opentelemetry") from error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.context import Context
    from opentelemetry.trace import TracerProvider

SYSTEM: Final = "hookware"

_logger = log_of()


class OpenTelemetry:
    """Spans of one Hookware: give it to `Hookware(observers=[...])`.

    `add QUEUE` is a producer span where tasks are added, one for each call. `process QUEUE` is a consumer span for each
    call of the app, with the attempt's number and what came of it. Neither holds a payload, nor the query of a URL.

    Args:
        tracer_provider: makes the spans; None: the global one, as it is when the first span begins.
        attempts: "link": each attempt begins a trace, with a link to the span that added the task. "parent": it
            belongs to the trace in which the task was added.

    Raises:
        ConfigurationError: `attempts` is something else.
    """

    def __init__(
        self, tracer_provider: "TracerProvider | None" = None, *, attempts: Literal["link", "parent"] = "link"
    ) -> None:
        if attempts not in ("link", "parent"):
            raise ConfigurationError(f'attempts= must be "link" or "parent", got {attempts!r}')
        self._tracer = trace.get_tracer("hookware", tracer_provider=tracer_provider)
        self._links = attempts == "link"

    def observe(self, outbox: Outbox) -> None:
        """Follow the tasks of a Hookware from now on."""
        outbox.tracing = self

    def added(self, tasks: Sequence[NewTask]) -> Sequence[NewTask]:
        """Give the tasks of one call with the context of a producer span in their headers."""
        try:
            return self._added(tasks)
        except Exception:
            _logger.exception("tasks could not be traced; they are added all the same")
            return tasks

    def begin(self, task: LeasedTask) -> Trace:
        """Begin the consumer span of a call of the app."""
        try:
            return self._begin(task)
        except Exception:
            _logger.exception("task %s could not be traced; it runs all the same", task.label, extra=fields_of(task))
            return _Untraced(task.headers)

    def _added(self, tasks: Sequence[NewTask]) -> Sequence[NewTask]:
        if not tasks:
            return tasks
        attributes = _attributes("add", "send", tasks[0].queue_name)
        if len(tasks) == 1:
            attributes["messaging.message.id"] = str(tasks[0].id)
        else:
            attributes["messaging.batch.message_count"] = len(tasks)
        with self._tracer.start_as_current_span(
            f"add {tasks[0].queue_name}", kind=SpanKind.PRODUCER, attributes=attributes
        ):
            carried = _injected(contexts.get_current())
        # What the application has set itself stays; and nobody delivers the headers of a pull task.
        return [task if task.is_pull else replace(task, headers=_with(task.headers, carried)) for task in tasks]

    def _begin(self, task: LeasedTask) -> Trace:
        stored = propagate.extract(dict(task.headers), context=contexts.Context())
        producer = trace.get_current_span(stored).get_span_context()
        around = trace.set_span_in_context(trace.INVALID_SPAN, stored) if self._links else stored  # keeps the baggage
        span = self._tracer.start_span(
            f"process {task.queue_name}",
            context=around,
            kind=SpanKind.CONSUMER,
            links=[Link(producer)] if self._links and producer.is_valid else None,
            attributes={
                **_attributes("process", "process", task.queue_name),
                "messaging.message.id": str(task.id),
                "hookware.task.attempt": task.attempt_count,
                "hookware.task.url": task.url.partition("?")[0],
            },
        )
        inside = trace.set_span_in_context(span, around)
        carried = _injected(inside)
        return _SpanTrace(span, inside, _with(_without(task.headers, carried), carried))


class _SpanTrace:
    """A consumer span."""

    def __init__(self, span: Span, inside: "Context", headers: Headers) -> None:
        self._span, self._inside = span, inside
        self.headers = headers

    @contextmanager
    def entered(self) -> "Iterator[None]":
        # Whoever instruments the app around Hookware has read the headers, and its span is the one to be in.
        if trace.get_current_span().get_span_context().is_valid:
            yield
            return
        token = contexts.attach(self._inside)
        try:
            yield
        finally:
            contexts.detach(token)

    def end(self, outcome: Outcome, error: BaseException | None) -> None:
        try:
            self._end(outcome, error)
        except Exception:
            _logger.exception("a span could not be ended")

    def _end(self, outcome: Outcome, error: BaseException | None) -> None:
        span = self._span
        match outcome:
            case Succeeded(status=status):
                span.set_attribute("http.response.status_code", status)
            case Failed(status=status, error=text):
                if status is not None:
                    span.set_attribute("http.response.status_code", status)
                _fail(span, text, str(status or "failed") if error is None else _name_of(error))
            case Conflicted(error=text):
                _fail(span, text, "conflict")
            case Interrupted():
                _fail(span, "interrupted: the task is given back", "interrupted")
        if error is not None:
            span.add_event("exception", {"exception.type": _name_of(error), "exception.message": _said(error)})
        span.set_attribute("hookware.task.outcome", type(outcome).__name__.lower())
        span.end()


class _Untraced:
    """The trace of a call that is not traced."""

    def __init__(self, headers: Headers) -> None:
        self.headers = headers

    def entered(self) -> AbstractContextManager[object]:
        return nullcontext()

    def end(self, outcome: Outcome, error: BaseException | None) -> None:
        """Note nothing."""


def _attributes(name: str, kind: str, queue_name: str) -> dict[str, str | int]:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": queue_name,
    }


def _injected(context: "Context") -> dict[str, str]:
    """Give the headers that carry a context, as far as they can be headers."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context=context)
    return {name.lower(): value for name, value in carrier.items() if _is_header(name, value)}


def _is_header(name: str, value: str) -> bool:
    try:
        check_header(name, value)
    except ValueError:
        return False
    return not is_internal(name) and not is_forbidden(name)


def _with(headers: Headers, carried: dict[str, str]) -> Headers:
    names = {name for name, _ in headers}
    if names & {field.lower() for field in propagate.get_global_textmap().fields}:
        return headers
    return (*headers, *carried.items())


def _without(headers: Headers, carried: dict[str, str]) -> Headers:
    fields = {field.lower() for field in propagate.get_global_textmap().fields}
    return tuple(header for header in headers if header[0] not in fields) if carried else headers


def _fail(span: Span, text: str, kind: str) -> None:
    span.set_status(Status(StatusCode.ERROR, loggable(text)))
    span.set_attribute("error.type", kind)


def _name_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _said(error: BaseException) -> str:
    return one_line(describe(error))
