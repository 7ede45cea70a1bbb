"""Takes the dashboard's pictures for the documentation, in light and in dark: `python scripts/screenshots.py`.

It wants playwright and a Chromium on the PATH; the installation that it shows is made up.
"""

import json
import random
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT))

import uvicorn  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from sqlalchemy import make_url  # noqa: E402

from hookware import CronEntry, Queue, __version__  # noqa: E402
from hookware.core.lifecycle import State  # noqa: E402
from hookware.core.statistics import MINUTE_US, Sums  # noqa: E402
from hookware.store.sql import minutes  # noqa: E402
from tests.dashboard.site import records  # noqa: E402
from tests.databases import Database  # noqa: E402
from tests.insight.stored import World  # noqa: E402
from tests.stage import Stage  # noqa: E402

QUEUES = [Queue("default"), Queue("emails", rate="20/s", bucket_size=20), Queue("reports", max_concurrent_requests=2)]
REFUSED = "ConnectionRefusedError: [Errno 111] Connect call failed ('10.0.3.7', 587)"
NO_CUSTOMER = "LookupError: there is no customer 4711"


def world(folder: str) -> tuple[World, int]:
    """Make an installation up; give the task that is shown, too."""
    stage = Stage(Database(url=make_url(f"sqlite:///{folder}/shop.db"), driver=""))
    cron = [CronEntry(url="/report", schedule="every day 06:00", description="The report of the day")]
    shop = World(stage, dashboard=True, queues=QUEUES, cron=cron)
    form = json.dumps([["content-type", "application/x-www-form-urlencoded"]])
    shop.put(count=3, ago=0.4, url="/orders/confirm", body=b"order=8815", headers=form)
    shop.put(State.LEASED, count=4, queue_name="emails", url="/emails/send", owner="web-1")
    shop.put(count=412, ago=21, queue_name="emails", url="/emails/send", body=b"order=8807", headers=form)
    shop.put(State.LEASED, count=2, queue_name="reports", url="/reports/build", owner="web-2")
    shop.put(count=5, ago=95, queue_name="reports", url="/reports/build")
    shop.put(count=30, ago=-7200, url="/orders/remind")
    failed: dict[str, Any] = {"origin": "POST /orders", "body": b"customer=4711&order=8790", "headers": form}
    [shown] = shop.put(
        State.DEAD, ago=240, queue_name="emails", url="/emails/send", attempt_count=5, record_count=3,
        last_status=500, last_error=NO_CUSTOMER, **failed,
    )  # fmt: skip
    shop.put(State.DEAD, count=6, ago=400, queue_name="emails", url="/emails/send", last_error=NO_CUSTOMER)
    shop.put(
        count=9, ago=-40, queue_name="emails", url="/emails/send", attempt_count=1, last_error=REFUSED, last_status=500
    )
    for number in (1, 2, 3):
        records(shop, shown, NO_CUSTOMER, number=number, headers=[["content-type", "text/plain"]])
    for host in ("web-1", "web-2"):
        shop.process(host=host, version=__version__, running_count=3)
    fill_minutes(shop)
    return shop, shown


def fill_minutes(shop: World) -> None:
    """Make an hour of work up."""
    chance = random.Random(7)
    this_us = shop.now_us - shop.now_us % MINUTE_US
    gathered: dict[tuple[str, int], Sums] = {}
    for ago in range(1, 61):
        whole = gathered["", this_us - ago * MINUTE_US] = Sums()
        for queue_name, most in (("default", 90), ("emails", 160), ("reports", 6)):
            sums = gathered[queue_name, this_us - ago * MINUTE_US] = Sums()
            for _ in range(int(most * (0.6 + 0.4 * chance.random()))):
                failed = queue_name == "emails" and 20 < ago < 28 and chance.random() < 0.3
                ended = (1 if failed else 0, int(20_000 + chance.expovariate(1 / 60_000)), 3000)
                sums.ended(*ended)
                whole.ended(*ended)
    shop.outbox.runner.run_blocking(lambda c: minutes.add(c, shop.outbox.own_clock, gathered))


def take(url: str, shown: int) -> None:
    """Take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for scheme in ("light", "dark"):
            context = browser.new_context(color_scheme=scheme, viewport={"width": 1180, "height": 860})
            page = context.new_page()
            for name, path in (("overview", "/"), ("task", f"/task/{shown}")):
                page.goto(url + path)
                page.screenshot(path=IMAGES / f"dashboard-{name}-{scheme}.png")
            context.close()
        browser.close()


def main() -> None:
    """Serve it, take them, and end."""
    with tempfile.TemporaryDirectory() as folder:
        shop, shown = world(folder)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(shop.hookware, log_level="error", ws="none"))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until = monotonic() + 30
        while not server.started and monotonic() < until:
            thread.join(0.05)
        try:
            take(f"http://127.0.0.1:{listening.getsockname()[1]}/_hookware", shown)
        finally:
            server.should_exit = True
            thread.join()
            listening.close()
            shop.stage.close_blocking()


if __name__ == "__main__":
    main()
