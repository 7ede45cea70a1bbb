"""The dashboard as an ASGI app: access, then the route, then the page or the action; each answer by one door."""

import os
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hookware.context import hookware_here
from hookware.core.filter import FilterError
from hookware.dashboard import answers
from hookware.dashboard.access import (
    COOKIE,
    COOKIE_SECONDS,
    ROLES,
    Given,
    Loopback,
    Tokens,
    Visitor,
    gate_of,
    is_same_origin,
)
from hookware.dashboard.acts import notice_of
from hookware.dashboard.forms import FormError, read_form
from hookware.dashboard.rendering import Pages
from hookware.dashboard.routes import Route, find
from hookware.dashboard.visit import Moved, NotFoundError, RefusedError, Shown, Visit
from hookware.delivery import delivery_in
from hookware.env import Env
from hookware.errors import ConfigurationError, Error, TransientError
from hookware.insight import Insight
from hookware.log import log_of
from hookware.plain_answers import nothing_here
from hookware.store.sql.outbox import Outbox

_CLOSED: Final = "The dashboard is closed to you."
_OPEN: Final = (
    "the dashboard is open, without a password and for everything, to clients on this machine: for development only. "
    "Give it a token, by HOOKWARE_DASHBOARD_TOKEN or dashboard=, or a callable that knows your users"
)
_logger = log_of()


class Dashboard:
    """Shows an installation to people, and lets them act on it: an ASGI app.

    `Hookware(app, dashboard=...)` serves it under `/_hookware/`; or mount it, `app.mount("/tasks", Dashboard(...))`.

    Args:
        auth: who may come in. A callable that is given the request and gives "read", "operate", "admin", or None for
            nobody, also an `async def`; what it sets as `request.state.hookware_who` is what the audit calls the user.
            Or a token of at least 22 characters, for the role "admin"; or a mapping of tokens to roles. True: the
            token in HOOKWARE_DASHBOARD_TOKEN, and without one, clients on this machine that come through no proxy.

    Raises:
        ConfigurationError: a token is too short, or `auth` is none of these.
    """

    def __init__(self, auth: Given = True, *, env: Env | None = None, outbox: Outbox | None = None) -> None:
        self._gate = gate_of(auth, os.environ, env or Env())
        self._outbox = outbox
        self._asked: tuple[Outbox, Insight] | None = None
        self._assets = answers.Assets()
        self._pages = Pages(self._assets.version)
        if isinstance(self._gate, Loopback):
            _logger.warning("%s", _OPEN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http" or delivery_in(scope) is not None:  # no task may drive it
            await nothing_here(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except TransientError:
            response = answers.plain("The database is busy. Try again.", 503, **{"retry-after": "2"})
        except Exception:
            _logger.exception("the dashboard could not answer %s", request.method)
            response = answers.plain("Something went wrong; the log of the app tells what.", 500)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        base = str(request.scope.get("root_path", ""))
        path = _path(request.scope, base)
        if path == "":
            return answers.moved(f"{base}/")
        visitor = await self._gate.visitor(request)
        if path.startswith("/static/") and (visitor is not None or self._gate.has_login):
            return self._assets.answer(request, path.removeprefix("/static/"))
        method = "GET" if request.method == "HEAD" else request.method
        if method == "POST" and not is_same_origin(request):
            return answers.plain("This has to be sent by the dashboard's own pages.", 403)
        if isinstance(self._gate, Tokens) and path in ("/login", "/logout"):
            return await self._log_in_or_out(request, base, path, self._gate)
        if visitor is None:
            return self._turn_away(request, base)
        found = find(method, path)
        if isinstance(found, frozenset):
            return self._nowhere(request, visitor, base, found)
        route, ids = found
        if not visitor.may(route.role):
            return self._said(
                request, visitor, base, f"This is for the role {route.role}; yours is {visitor.role}.", 403
            )
        return await self._serve(request, visitor, base, route, ids)

    # Coming in.

    def _turn_away(self, request: Request, base: str) -> Response:
        if not self._gate.has_login:
            return answers.plain(_CLOSED, 403)
        response = self._page(request, None, base, Shown(template="login.html", values={"problem": None}, status=401))
        response.headers["www-authenticate"] = "Bearer"
        return response

    async def _log_in_or_out(self, request: Request, base: str, path: str, gate: Tokens) -> Response:
        if request.method != "POST":
            return self._turn_away(request, base)
        cookie = None
        if path == "/login":
            try:
                cookie = gate.cookie((await read_form(request)).get("token", ""))
            except FormError as error:
                return answers.plain(str(error), error.status)
            if cookie is None:
                shown = Shown(template="login.html", values={"problem": "Nobody has this token."}, status=401)
                return self._page(request, None, base, shown)
        response = answers.moved(f"{base}/")
        response.set_cookie(
            COOKIE, cookie or "", max_age=COOKIE_SECONDS if cookie else 0, path=base or "/",
            secure=request.url.scheme == "https", httponly=True, samesite="strict",
        )  # fmt: skip
        return response

    # Serving.

    async def _serve(
        self, request: Request, visitor: Visitor, base: str, route: Route, ids: tuple[int, ...]
    ) -> Response:
        try:
            outbox, insight = self._asking()
            visit = Visit(
                request=request, visitor=visitor, outbox=outbox, insight=insight, ids=ids,
                form=await read_form(request) if route.method == "POST" else {},
            )  # fmt: skip
            result = await route.serve(visit)
        except FormError as error:
            return self._said(request, visitor, base, str(error), error.status)
        except NotFoundError as error:
            return self._said(request, visitor, base, str(error), 404)
        except (RefusedError, FilterError) as error:
            return self._said(request, visitor, base, str(error), 400)
        except (TransientError, ConfigurationError):
            raise
        except Error as error:
            return self._said(request, visitor, base, str(error), 400)
        if isinstance(result, Moved):
            return answers.moved(base + result.target)
        return self._page(request, visitor, base, result)

    def _asking(self) -> tuple[Outbox, Insight]:
        outbox = self._outbox or hookware_here()
        if self._asked is None or self._asked[0] is not outbox:
            self._asked = outbox, Insight(outbox)
        return self._asked

    def _nowhere(self, request: Request, visitor: Visitor, base: str, methods: frozenset[str]) -> Response:
        if not methods:
            return self._said(request, visitor, base, "There is no such page.", 404)
        return answers.plain("This address is not for this method.", 405, allow=", ".join(sorted(methods)))

    def _said(self, request: Request, visitor: Visitor, base: str, text: str, status: int) -> Response:
        return self._page(request, visitor, base, Shown(template="said.html", values={"text": text}, status=status))

    def _page(self, request: Request, visitor: Visitor | None, base: str, shown: Shown) -> Response:
        values: Mapping[str, Any] = {
            **shown.values,
            "base": base,
            "path": _path(request.scope, base),
            "here": f"{base}{_path(request.scope, base)}" + (f"?{query}" if (query := request.url.query) else ""),
            "notice": notice_of(request.query_params.get("notice", "")),
            "undo": undo if (undo := request.query_params.get("undo", "")).isascii() and undo.isdigit() else None,
            "visitor": visitor,
            "may": {role: visitor is not None and visitor.may(role) for role in ROLES},
            "has_logout": self._gate.has_login and COOKIE in request.cookies,
        }
        return answers.page(request, self._pages.fill(shown.template, dict(values)), shown.status)


def _path(scope: Scope, base: str) -> str:
    path = str(scope["path"])
    if base and path.startswith(base) and path[len(base) : len(base) + 1] in ("", "/"):
        return path[len(base) :]
    return path
