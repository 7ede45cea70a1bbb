"""Reads a page of metrics as Prometheus itself would: by the real parser."""

from prometheus_client.parser import text_string_to_metric_families
from starlette.types import ASGIApp

from tests.asgi import request

Sample = tuple[str, frozenset[tuple[str, str]]]


class Page:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[Sample, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Give one sample's value; None: it is not there."""
        return self.samples.get((name, frozenset(labels.items())))

    def by(self, name: str, label: str) -> dict[str, float]:
        """Give the samples of a name by one of their labels."""
        return {dict(labels)[label]: value for (found, labels), value in self.samples.items() if found == name}

    def total(self, name: str) -> float:
        """Give the sum of the samples of a name."""
        return sum(value for (found, _), value in self.samples.items() if found == name)


async def scrape(app: ASGIApp, path: str = "/metrics") -> Page:
    """Ask for the page."""
    answer = await request(app, path, method="GET")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Page(answer.body.decode())
