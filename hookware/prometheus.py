"""Metrics for Prometheus: counted from events, and read from the database when somebody looks.

Labels are few: a queue that is configured, or "other"; never a task, a URL or an error.
"""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hookware import __version__
from hookware.asking import Asking
from hookware.core.queue import DEFAULT_QUEUE
from hookware.errors import ConfigurationError
from hookware.events import AttemptSettled, AttemptStarted, CronFired, Event, LoopFailed, TasksCommitted
from hookware.store.sql import depths
from hookware.store.sql.depths import Depth, Depths
from hookware.store.sql.outbox import Outbox

try:
    from prometheus_client import CollectorRegistry, Counter, Histogram
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import GaugeMetricFamily, Metric
    from prometheus_client.multiprocess import MultiProcessCollector
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        'metrics need prometheus-client: pip install "hookware[prometheus]"', name="prometheus_client"
    ) from error

OTHER: Final = "other"
MULTIPROCESS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_STATES: Final = ("waiting", "due", "leased", "dead")


class Prometheus:
    """Metrics of one Hookware: give it to `Hookware(observers=[...])`, and a path of the app to it.

    `app.add_route("/metrics", prometheus.endpoint)` in Starlette and FastAPI; for others it is an ASGI app itself. The
    page holds numbers, and the names of queues that are configured; who may reach the path may read it.

    Args:
        registry: where the metrics are registered; None: a registry of their own. With prometheus_client's REGISTRY
            they are on the page that the app has already.
        most_counted: how far tasks are counted in each queue and state. A gauge of so many means: at least as many.
        fresh_seconds: for how long the numbers of the database are given again before it is asked anew; at least 1.

    Attributes:
        registry: where the metrics are registered.

    Raises:
        ConfigurationError: `most_counted` or `fresh_seconds` is less than 1.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, most_counted: int = 10_000, fresh_seconds: float = 5.0
    ) -> None:
        for name, number in (("most_counted", most_counted), ("fresh_seconds", fresh_seconds)):
            if number < 1:
                raise ConfigurationError(f"{name} must be at least 1, got {number!r}: each scrape would cost too much")
        self.registry = CollectorRegistry() if registry is None else registry
        self._most, self._fresh_seconds = most_counted, fresh_seconds
        self._watched: list[_Watched] = []
        self._gauges = _Gauges(self._watched, most_counted)
        self._meters = _Meters(self.registry)
        self.registry.register(self._gauges)

    def observe(self, outbox: Outbox) -> None:
        """Count what happens in a Hookware from now on."""
        self._watched.append(_Watched(outbox, self._most, self._fresh_seconds))
        names = frozenset({DEFAULT_QUEUE, *outbox.config.queues})
        outbox.events.subscribe(partial(self._meters.note, names))

    async def endpoint(self, request: Request) -> Response:
        """Give the metrics, in the format that is asked for: for a route of Starlette or FastAPI."""
        for watched in self._watched:
            await watched.asking.wait()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._shown()), media_type=content_type, headers={"cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the metrics: for any ASGI framework."""
        response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)

    def _shown(self) -> CollectorRegistry:
        """Give what is shown: with prometheus_client's directory for several processes, the sums of all of them."""
        if not os.environ.get(MULTIPROCESS_VARIABLE):
            return self.registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
        registry.register(self._gauges)
        return registry


class _Watched:
    """One Hookware and what its database says."""

    def __init__(self, outbox: Outbox, most: int, fresh_seconds: float) -> None:
        self._most = most
        self.outbox = outbox
        self.asking = Asking(self._ask, outbox.env, good_for_seconds=fresh_seconds)

    def label(self, queue_name: str) -> str:
        return queue_name if queue_name == DEFAULT_QUEUE or queue_name in self.outbox.config.queues else OTHER

    def _ask(self) -> Depths:
        runner, clock = self.outbox.runner, self.outbox.own_clock
        return runner.run_blocking(lambda c: depths.count(c, clock(c), self._most), write=False)


class _Meters:
    """What is counted from events."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._by_label: dict[str, _OfQueue] = {}
        self._committed = Counter(
            "hookware_tasks_committed", "Tasks whose transaction was committed in this process.", registry=registry
        )
        self._started = Counter(
            "hookware_attempts_started", "Attempts that have begun in this process.", ["queue"], registry=registry
        )
        self._attempts = Counter(
            "hookware_attempts",
            "Attempts that have ended, by what became of them; those of dead processes where they are taken back.",
            ["queue", "outcome"],
            registry=registry,
        )
        self._crashed = Counter(
            "hookware_leases_expired",
            "Attempts whose process died, or froze, and that were taken back here.",
            ["queue"],
            registry=registry,
        )
        self._loop_failures = Counter(
            "hookware_loop_failures", "Failures of background loops, after each of which they go on.", ["loop"],
            registry=registry,
        )  # fmt: skip
        self._cron = Counter("hookware_cron_fired", "Tasks added by cron entries in this process.", registry=registry)
        self._duration = Histogram(
            "hookware_attempt_duration_seconds",
            "From the begin of an attempt in this process to its end.",
            ["queue"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._latency = Histogram(
            "hookware_task_latency_seconds",
            "From when a task was due to the begin of its attempt.",
            ["queue"],
            registry=registry,
            buckets=_SECONDS,
        )

    def note(self, names: frozenset[str], event: Event) -> None:
        match event:
            case AttemptStarted():
                of_queue = self._of(names, event.task.queue_name)
                of_queue.started.inc()
                of_queue.latency.observe(event.late_seconds)
            case AttemptSettled():
                self._settled(self._of(names, event.task.queue_name), event)
            case TasksCommitted():
                self._committed.inc(event.count)
            case LoopFailed():
                self._loop_failures.labels(event.loop).inc()
            case CronFired():
                self._cron.inc()

    def _settled(self, of_queue: "_OfQueue", event: AttemptSettled) -> None:
        outcome = event.outcome
        counter = of_queue.outcomes.get(outcome)
        if counter is None:
            counter = of_queue.outcomes[outcome] = self._attempts.labels(of_queue.label, outcome)
        counter.inc()
        if event.was_begun:
            of_queue.duration.observe(event.duration_seconds)
        if getattr(event.decision, "crashed", False):
            self._crashed.labels(of_queue.label).inc()

    def _of(self, names: frozenset[str], queue_name: str) -> "_OfQueue":
        label = queue_name if queue_name in names else OTHER
        found = self._by_label.get(label)
        if found is None:
            found = self._by_label[label] = _OfQueue(
                label, self._started.labels(label), self._latency.labels(label), self._duration.labels(label), {}
            )
        return found


class _OfQueue(NamedTuple):
    """What counts one queue, so that it need not be looked up by its label for each task."""

    label: str
    started: Counter
    latency: Histogram
    duration: Histogram
    outcomes: dict[str, Counter]


class _Gauges(Collector):
    """What is read when somebody looks."""

    def __init__(self, watched: list[_Watched], most: int) -> None:
        self._watched, self._most = watched, most

    def describe(self) -> Iterable[Metric]:
        """Name no metrics: registering must not ask a database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give the gauges."""
        yield from self._queues()
        failing = GaugeMetricFamily("hookware_loop_failing", "1 for a background loop that fails now.", labels=["loop"])
        for name in sorted({name for watched in self._watched for name in watched.outbox.vitals.failing()}):
            failing.add_metric([name], 1)
        yield failing
        build = GaugeMetricFamily("hookware_build_info", "The version of hookware, as a label.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build

    def _queues(self) -> Iterator[Metric]:
        found = {watched: watched.asking.now() for watched in self._watched}
        answers = [answer for answer in found.values() if answer is not None]
        up = GaugeMetricFamily("hookware_database_up", "Whether the database could be asked for these numbers.")
        up.add_metric([], int(bool(answers) and len(answers) == len(found)))
        tasks = GaugeMetricFamily(
            "hookware_queue_tasks",
            f"Tasks in the database, of all processes; {self._most} means at least as many.",
            labels=["queue", "state"],
        )
        age = GaugeMetricFamily(
            "hookware_queue_oldest_due_age_seconds",
            "For how long the oldest task has been due that does not run; 0 if there is none.",
            labels=["queue"],
        )
        for queue, depth, now_us in _by_label(found):
            for state, count in zip(_STATES, depth[:4], strict=True):
                tasks.add_metric([queue, state], count)
            due_us = now_us if depth.oldest_due_us is None else depth.oldest_due_us
            age.add_metric([queue], (now_us - due_us) / 1e6)
        yield from (up, tasks, age)


def _by_label(found: dict[_Watched, Depths | None]) -> Iterator[tuple[str, Depth, int]]:
    """Give the numbers by label; a queue that is known and empty has zeros, so that alerts have something to see."""
    by_label: dict[str, Depth] = {}
    now_us = 0
    for watched, answer in found.items():
        if answer is None:
            continue
        now_us = max(now_us, answer.now_us)
        for name in (DEFAULT_QUEUE, *watched.outbox.config.queues):
            by_label.setdefault(name, Depth())
        for name, depth in answer.by_queue.items():
            label = watched.label(name)
            by_label[label] = by_label.get(label, Depth()).plus(depth)
    yield from ((label, depth, now_us) for label, depth in by_label.items())
