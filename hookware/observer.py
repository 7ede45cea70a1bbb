"""What watches a Hookware from outside of the straight line: metrics, traces."""

from typing import Protocol

from hookware.store.sql.outbox import Outbox


class Observer(Protocol):
    """Something that `Hookware(observers=[...])` takes, such as `hookware.prometheus.Prometheus`."""

    def observe(self, outbox: Outbox) -> None:
        """Be told of the one database of a Hookware, once, before anything happens there."""
        ...
