"""Spans: where a task is added, and for each of its attempts, with the app's own instrumentation inside of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ContribMiddleware
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware as StarletteMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookware import PermanentTaskFailure, Queue, QueueSettings, TaskContext, taskqueue
from hookware.errors import ConfigurationError
from hookware.opentelemetry import OpenTelemetry
from tests.asgi import request
from tests.serving import serving
from tests.stage import AT_ONCE, Stage


class Telemetry:
    """A provider of tracers that keeps its spans here."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def spans(self, kind: SpanKind | None = None) -> list[ReadableSpan]:
        """Give the spans that have ended, in the order of their begin."""
        spans = sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        return [span for span in spans if kind in (None, span.kind)]

    def one(self, kind: SpanKind) -> ReadableSpan:
        (span,) = self.spans(kind)
        return span


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.provider.shutdown()


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def traceparent(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def adding() -> Starlette:
    """Give an app whose one route adds a task."""

    async def add(_request: Request) -> Response:
        taskqueue.add(url="/worker")
        return Response()

    return Starlette(routes=[Route("/add", add, methods=["POST"])])


@pytest.mark.parametrize("kind", ["contrib", "starlette"])
@pytest.mark.parametrize("place", ["outside", "inside"])
async def test_an_attempt_links_to_where_the_task_was_added_and_the_app_goes_on_with_its_trace(
    stage: Stage, telemetry: Telemetry, kind: str, place: str
) -> None:
    tracer = telemetry.provider.get_tracer("test")

    async def worker(_request: Request) -> Response:
        with tracer.start_as_current_span("inner"):
            return Response()

    def instrument() -> None:
        if kind == "contrib":
            quiet: Any = {"exclude_spans": ["receive", "send"]}
            app.add_middleware(ContribMiddleware, tracer_provider=telemetry.provider, **quiet)
        else:
            app.add_middleware(StarletteMiddleware, tracer_provider=telemetry.provider)

    app = adding()
    app.routes.append(Route("/worker", worker, methods=["POST"]))
    if place == "inside":
        instrument()
    stage.add_to(app, observers=[OpenTelemetry(telemetry.provider)])
    if place == "outside":
        instrument()
    async with serving(app):
        assert (await request(app, "/add")).status == 200
        await stage.settled()

    producer, consumer = telemetry.one(SpanKind.PRODUCER), telemetry.one(SpanKind.CONSUMER)
    assert (producer.name, consumer.name) == ("add default", "process default")
    adding_request, delivery = [span for span in telemetry.spans() if span.name.startswith("POST")]
    assert producer.parent is not None
    assert (producer.parent.trace_id, producer.parent.span_id) == ids(adding_request)
    assert consumer.parent is None
    assert ids(consumer)[0] != ids(producer)[0]
    assert [(link.context.trace_id, link.context.span_id) for link in consumer.links] == [ids(producer)]
    assert delivery.parent is not None
    assert (delivery.parent.trace_id, delivery.parent.span_id) == ids(consumer)
    (inner,) = [span for span in telemetry.spans() if span.name == "inner"]
    assert inner.parent is not None
    assert (inner.parent.trace_id, inner.parent.span_id) == ids(delivery)


async def test_spans_say_what_the_conventions_of_messaging_want_and_nothing_of_the_payload(
    stage: Stage, telemetry: Telemetry
) -> None:
    @stage.task_handler("/worker")
    async def worker(key: str) -> None: ...

    async with stage.running(observers=[OpenTelemetry(telemetry.provider)]):
        task = await taskqueue.add_async(url="/worker?key=s3cret", method="GET", headers={"x-key": "s3cret"})
        await stage.settled()
    producer, consumer = telemetry.one(SpanKind.PRODUCER), telemetry.one(SpanKind.CONSUMER)
    common = {
        "messaging.system": "hookware",
        "messaging.destination.name": "default",
        "messaging.message.id": str(task.id),
    }
    assert attributes(producer) == {
        **common, "messaging.operation.name": "add", "messaging.operation.type": "send",
    }  # fmt: skip
    assert attributes(consumer) == {
        **common,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "hookware.task.attempt": 1,
        "hookware.task.url": "/worker",
        "hookware.task.outcome": "succeeded",
        "http.response.status_code": 200,
    }
    assert consumer.status.status_code is StatusCode.UNSET
    assert "s3cret" not in "".join(span.to_json() for span in telemetry.spans())


async def test_each_attempt_is_a_trace_of_its_own_and_says_why_it_failed(stage: Stage, telemetry: Telemetry) -> None:
    seen: list[str] = []

    @stage.task_handler("/worker")
    async def worker(context: TaskContext, request: Request) -> None:
        seen.append(request.headers["traceparent"])
        if context.attempt == 1:
            raise LookupError("no\nsuch thing")
        raise PermanentTaskFailure("never")

    queues = [QueueSettings(retry=AT_ONCE)]
    async with stage.running(observers=[OpenTelemetry(telemetry.provider)], queues=queues):
        await worker.add_async()
        await stage.settled(2)
    producer, (first, second) = telemetry.one(SpanKind.PRODUCER), telemetry.spans(SpanKind.CONSUMER)
    assert [traceparent(span) for span in (first, second)] == seen
    assert len({ids(span)[0] for span in (producer, first, second)}) == 3
    for span, number, error in (
        (first, 1, "LookupError"),
        (second, 2, "hookware.errors.PermanentTaskFailure"),
    ):
        assert [link.context.span_id for link in span.links] == [ids(producer)[1]]
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["hookware.task.attempt"] == number
        assert attributes(span)["hookware.task.outcome"] == "failed"
        assert attributes(span)["error.type"] == error
        (event,) = span.events
        assert (event.attributes or {})["exception.type"] == error
    assert first.status.description == "LookupError: no such thing"


async def test_an_answer_that_is_no_success_is_an_error_with_its_status(stage: Stage, telemetry: Telemetry) -> None:
    async with stage.running(Starlette(), observers=[OpenTelemetry(telemetry.provider)]):
        await taskqueue.add_async(url="/nowhere")
        await stage.settled()
    span = telemetry.one(SpanKind.CONSUMER)
    assert (attributes(span)["http.response.status_code"], attributes(span)["error.type"]) == (404, "404")
    assert span.status.status_code is StatusCode.ERROR


async def test_a_task_that_cannot_be_made_into_a_request_has_its_span_too(stage: Stage, telemetry: Telemetry) -> None:
    async with stage.running(dispatch=False):
        await taskqueue.add_async(url="/worker")
    stage.execute("UPDATE hookware_task SET method = 'no'")
    async with stage.running(observers=[OpenTelemetry(telemetry.provider)]):
        await stage.settled()
    assert telemetry.one(SpanKind.CONSUMER).status.status_code is StatusCode.ERROR


async def test_as_parent_the_attempt_goes_on_with_the_trace_that_added_it(stage: Stage, telemetry: Telemetry) -> None:
    @stage.task_handler("/worker")
    async def worker() -> None: ...

    async with stage.running(observers=[OpenTelemetry(telemetry.provider, attempts="parent")]):
        await worker.add_async()
        await stage.settled()
    producer, consumer = telemetry.one(SpanKind.PRODUCER), telemetry.one(SpanKind.CONSUMER)
    assert consumer.parent is not None
    assert (consumer.parent.trace_id, consumer.parent.span_id) == ids(producer)
    assert list(consumer.links) == []


@pytest.mark.parametrize("is_async", [True, False])
async def test_without_instrumentation_of_the_app_spans_of_a_handler_are_in_the_attempt(
    stage: Stage, telemetry: Telemetry, is_async: bool
) -> None:
    tracer = telemetry.provider.get_tracer("test")

    @stage.task_handler("/async")
    async def worker() -> None:
        with tracer.start_as_current_span("inner"):
            taskqueue.add(url="/next")

    @stage.task_handler("/sync")
    def sync_worker() -> None:
        with tracer.start_as_current_span("inner"):
            taskqueue.add(url="/next")

    @stage.task_handler("/next")
    async def following() -> None: ...

    async with stage.running(observers=[OpenTelemetry(telemetry.provider)]):
        await (worker if is_async else sync_worker).add_async()
        await stage.settled(2)
    first, second = telemetry.spans(SpanKind.CONSUMER)
    (inner,) = [span for span in telemetry.spans() if span.name == "inner"]
    _, added = telemetry.spans(SpanKind.PRODUCER)
    assert inner.parent is not None
    assert (inner.parent.trace_id, inner.parent.span_id) == ids(first)
    assert added.parent is not None
    assert (added.parent.trace_id, added.parent.span_id) == ids(inner)
    assert [link.context.span_id for link in second.links] == [ids(added)[1]]
    assert not trace.get_current_span(contexts.get_current()).get_span_context().is_valid


async def test_several_tasks_of_one_call_share_a_span_and_pull_tasks_carry_no_headers(
    stage: Stage, telemetry: Telemetry
) -> None:
    queues = [QueueSettings(), Queue("pulled", mode="pull")]
    async with stage.running(observers=[OpenTelemetry(telemetry.provider)], queues=queues, dispatch=False):
        await Queue().add_async([taskqueue.Task(url="/worker") for _ in range(3)])
        await taskqueue.add_async(payload="x", method="PULL", queue_name="pulled")
    several, pulled = telemetry.spans(SpanKind.PRODUCER)
    assert attributes(several)["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in attributes(several)
    stored = dict(stage.rows("SELECT headers, count(*) FROM hookware_task GROUP BY headers"))
    assert sorted(count for headers, count in stored.items() if traceparent(several) in headers) == [3]
    assert pulled.name == "add pulled"
    assert not any("traceparent" in headers and count == 1 for headers, count in stored.items())


async def test_a_trace_that_the_application_has_set_stays(stage: Stage, telemetry: Telemetry) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    stored: list[str] = []

    @stage.task_handler("/worker")
    async def worker() -> None: ...

    async with stage.running(observers=[OpenTelemetry(telemetry.provider)]):
        await taskqueue.add_async(url="/worker", headers={"traceparent": given, "tracestate": "a=b"})
        stored += stage.rows("SELECT headers FROM hookware_task")
        await stage.settled()
    consumer = telemetry.one(SpanKind.CONSUMER)
    assert f"{consumer.links[0].context.span_id:016x}" == "b7ad6b7169203331"
    assert all(f'["traceparent", "{given}"]' in headers for headers in stored)


async def test_without_an_sdk_nothing_is_stored_and_a_given_trace_is_handed_on(stage: Stage) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen: list[str | None] = []

    @stage.task_handler("/worker")
    async def worker(request: Request) -> None:
        seen.append(request.headers.get("traceparent"))

    observer = OpenTelemetry(trace.NoOpTracerProvider())
    async with stage.running(observers=[observer], dispatch=False):
        await worker.add_async()
        assert stage.rows("SELECT headers FROM hookware_task WHERE headers LIKE '%trace%'") == []
    async with stage.running(observers=[observer]):
        await taskqueue.add_async(url="/worker", headers={"traceparent": given})
        await stage.settled(2)
    assert sorted(seen, key=str) == [given, None]


class Failing(SpanProcessor):
    """As one whose exporter is misconfigured."""

    def __init__(self, when: str) -> None:
        self._when = when

    def on_start(self, span: Span, parent_context: contexts.Context | None = None) -> None:
        if self._when == "start":
            raise OSError("no collector")

    def on_end(self, span: ReadableSpan) -> None:
        if self._when == "end":
            raise OSError("no collector")


@pytest.mark.parametrize("when", ["start", "end"])
async def test_whatever_the_tracing_raises_tasks_are_added_and_run(
    stage: Stage, telemetry: Telemetry, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.provider.add_span_processor(Failing(when))
    ran: list[str] = []

    @stage.task_handler("/worker")
    async def worker() -> None:
        ran.append("")

    async with stage.running(observers=[OpenTelemetry(telemetry.provider)]):
        await worker.add_async()
        (settled,) = await stage.settled()
    assert (ran, settled.outcome) == ([""], "completed")
    assert "could not be" in caplog.text


def test_attempts_are_linked_or_children() -> None:
    with pytest.raises(ConfigurationError, match="attempts="):
        OpenTelemetry(attempts="sibling")  # type: ignore[arg-type]  # that is the test
