"""What the store in memory keeps of attempts."""

from dataclasses import replace

from hookware.core.history import AttemptRecord, superseded
from hookware.store.base import stored_error


class Attempts:
    """Records by task, each task's by number."""

    def __init__(self) -> None:
        self._records: dict[int, dict[int, AttemptRecord]] = {}

    def write(self, record: AttemptRecord) -> None:
        """Keep a record; of a task that has very many already, one in the middle goes for it."""
        error = None if record.error is None else stored_error(record.error)
        kept = replace(record, error=error, response_text=stored_error(record.response_text))
        records = self._records.setdefault(record.task_id, {})
        records.setdefault(record.number, kept)
        records.pop(superseded(record.number) or 0, None)

    def forget(self, task_id: int) -> None:
        """Remove what is kept of a task that is gone."""
        self._records.pop(task_id, None)

    def of_task(self, task_id: int) -> list[AttemptRecord]:
        """Give what is kept of a task, in order."""
        records = self._records.get(task_id, {})
        return [records[number] for number in sorted(records)]
