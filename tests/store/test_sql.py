"""The SQL store keeps the contract on SQLite: in threads on asyncio and trio, and on aiosqlite."""

import pytest

from tests.store.contract import StoreContract
from tests.store.contract_damage import DamageContract
from tests.store.subject import Subject


class TestThreads(StoreContract, DamageContract):
    """A synchronous engine, in worker threads; on asyncio the same statements run on PostgreSQL."""

    @pytest.fixture(scope="module")
    @classmethod
    def anyio_backend(cls) -> str:
        return "trio"

    @pytest.fixture
    def subject(self, thread_subject: Subject) -> Subject:
        return thread_subject


class TestAiosqlite(StoreContract, DamageContract):
    """An AsyncEngine, on its event loop."""

    @pytest.fixture(scope="module")
    @classmethod
    def anyio_backend(cls) -> str:
        return "asyncio"

    @pytest.fixture
    def subject(self, async_subject: Subject) -> Subject:
        return async_subject
