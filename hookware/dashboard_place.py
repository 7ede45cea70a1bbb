"""Where Hookware serves the dashboard, whose package is only imported where somebody wants it: it needs an extra."""

from typing import TYPE_CHECKING, Final

from starlette.types import Scope

from hookware.env import Env
from hookware.store.sql.outbox import Outbox

if TYPE_CHECKING:
    from hookware.dashboard import Dashboard, Given

PATH: Final = "/_hookware"


def is_for_dashboard(path: str) -> bool:
    """Say whether a request to this path, below the app's own prefix, is for the dashboard."""
    return path == PATH or path.startswith(f"{PATH}/")


def dashboard_scope(scope: Scope, path: str) -> Scope:
    """Give the scope for the dashboard: as if it were mounted there."""
    base = str(scope.get("root_path", "")) + PATH
    return {**scope, "root_path": base, "path": base + path[len(PATH) :]}


def served_dashboard(given: "Given", env: Env, outbox: Outbox) -> "Dashboard | None":
    """Make the dashboard of one Hookware; None: `given` is False, and there is none.

    Raises:
        ConfigurationError: `given` does not say who may come in.
        ImportError: the extra is not installed.
    """
    if given is False:
        return None
    from hookware.dashboard import Dashboard

    return Dashboard(given, env=env, outbox=outbox)
