"""Who may come in, and as what: a token, the app's own callable, or nobody but this machine. Closed by default."""

import hashlib
import hmac
import inspect
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast
from urllib.parse import SplitResult, urlsplit

from starlette.requests import Request

from hookware.env import Env
from hookware.errors import ConfigurationError

Role = Literal["read", "operate", "admin"]
"""What somebody may do: each of them also what those before it may."""

ROLES: Final[tuple[Role, ...]] = ("read", "operate", "admin")

Auth = Callable[[Request], Role | Awaitable[Role | None] | None]
"""Says what the sender of a request may do; None: nothing."""

TOKEN_VARIABLE: Final = "HOOKWARE_DASHBOARD_TOKEN"  # noqa: S105 - the name of a variable
COOKIE: Final = "hookware_dashboard"
LEAST_TOKEN: Final = 22
"""How many characters a token has at least: 128 random bits, as Base64 writes them."""

COOKIE_SECONDS: Final = 12 * 3600
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Somebody who is let in: what he may do, and what the audit calls him."""

    role: Role
    who: str

    def may(self, role: Role) -> bool:
        """Whether he may do what this role may."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Tokens:
    """Lets those in who know a token: as a bearer, or with the cookie that they get for it."""

    has_login = True

    def __init__(self, roles: Mapping[str, Role], env: Env) -> None:
        self._env = env
        self._roles: dict[bytes, Role] = {}
        for token, role in roles.items():
            if len(token) < LEAST_TOKEN:
                raise ConfigurationError(
                    f"a token of the dashboard must have {LEAST_TOKEN} characters at least: make one with "
                    "python -c 'import secrets; print(secrets.token_urlsafe())'"
                )
            if role not in ROLES:
                raise ConfigurationError(f'the role of a token must be "read", "operate" or "admin", got {role!r}')
            self._roles[_digest(token)] = role

    async def visitor(self, request: Request) -> Visitor | None:
        """Say who sends a request; None: nobody who is known."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            role = self._role_of_token(token.strip())
        else:
            role = self._role_of_cookie(request.cookies.get(COOKIE, ""))
        return None if role is None else Visitor(role=role, who=_named(request, f"token for {role}"))

    def cookie(self, token: str) -> str | None:
        """Give the cookie for a token; None: nobody has this token."""
        digest = self._found(_digest(token))
        if digest is None:
            return None
        ends = str(self._env.now_us() // 1_000_000 + COOKIE_SECONDS)
        return f"{ends}.{_seal(digest, ends)}"

    def _role_of_token(self, token: str) -> Role | None:
        digest = self._found(_digest(token))
        return None if digest is None else self._roles[digest]

    def _found(self, given: bytes) -> bytes | None:
        found = None
        for digest in self._roles:  # all of them: how long it takes tells nothing
            if hmac.compare_digest(digest, given):
                found = digest
        return found

    def _role_of_cookie(self, cookie: str) -> Role | None:
        ends, _, seal = cookie.partition(".")
        if not (ends.isascii() and ends.isdigit() and len(ends) < 16):
            return None
        role = None
        for digest, its_role in self._roles.items():
            if hmac.compare_digest(_seal(digest, ends).encode(), seal.encode()):
                role = its_role
        return role if int(ends) > self._env.now_us() // 1_000_000 else None


class Asked:
    """Lets those in whom the app's own callable lets in."""

    has_login = False

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def visitor(self, request: Request) -> Visitor | None:
        """Say who sends a request; None: nobody who is known."""
        answer: object = self._auth(request)
        role: object = await cast("Awaitable[object]", answer) if inspect.isawaitable(answer) else answer
        if role is None:
            return None
        known = next((each for each in ROLES if each == role), None)
        if known is None:
            raise ConfigurationError(
                f'the dashboard\'s callable must give "read", "operate", "admin" or None, got {role!r:.100}'
            )
        return Visitor(role=known, who=_named(request, "somebody"))


class Loopback:
    """Lets those in who sit at this machine, for development: whoever comes through a proxy does not."""

    has_login = False

    async def visitor(self, request: Request) -> Visitor | None:
        """Say who sends a request; None: it does not come from this machine, or may come from elsewhere."""
        if request.client is None or not _is_loopback(request.client.host):
            return None
        # What proxies add, and an old version of the protocol, which no browser speaks and nginx does by itself.
        if any(name in request.headers for name in _FORWARDED) or request.scope.get("http_version") == "1.0":
            return None
        # A name of somebody else's that leads to this machine would make its pages those of this origin.
        if _split(f"//{request.headers.get('host', '')}").hostname not in _LOCAL_NAMES:
            return None
        if _is_foreign_script(request):  # an app that shares everything with every origin would share this too
            return None
        return Visitor(role="admin", who=_named(request, "this machine"))


Gate = Tokens | Asked | Loopback
Given = bool | str | Mapping[str, Role] | Auth


def gate_of(given: Given, environment: Mapping[str, str], env: Env) -> Gate:
    """Give what decides who may come in: `given`, or else the token of the environment, or else the loopback rule.

    Raises:
        ConfigurationError: it is none of what it may be.
    """
    if isinstance(given, str):
        return Tokens({given: "admin"}, env)
    if isinstance(given, Mapping):
        if not given:
            raise ConfigurationError("dashboard={} has no token: nobody could come in")
        return Tokens(given, env)
    if callable(given):
        return Asked(given)
    if given is not True:
        raise ConfigurationError(
            "dashboard= takes True, a token, a mapping of tokens to roles, or a callable that is given the request "
            f"and gives a role, got {given!r:.100}"
        )
    token = environment.get(TOKEN_VARIABLE)
    return Tokens({token: "admin"}, env) if token else Loopback()


def is_same_origin(request: Request) -> bool:
    """Say whether a request that would change something comes from the dashboard's own pages, or from no page."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    if origin is None:
        # No browser that posts a form is so silent; and none adds a bearer's token by itself.
        return request.headers.get("authorization", "").lower().startswith("bearer ")
    return _is_own(origin, request)


def _is_own(origin: str, request: Request) -> bool:
    return _split(origin).netloc.lower() == request.headers.get("host", "").lower() != ""


def _is_foreign_script(request: Request) -> bool:
    """Say whether another site's page asks, other than by a link that somebody follows."""
    site, mode = request.headers.get("sec-fetch-site"), request.headers.get("sec-fetch-mode")
    if site in ("cross-site", "same-site") and mode != "navigate":
        return True
    origin = request.headers.get("origin")
    return origin is not None and not _is_own(origin, request)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # it is none: nobody's
        return urlsplit("")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _seal(digest: bytes, ends: str) -> str:
    return hmac.new(digest, f"hookware dashboard until {ends}".encode(), hashlib.sha256).hexdigest()


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _named(request: Request, otherwise: str) -> str:
    """Say who somebody is: what the app says in `request.state.hookware_who`, or else his kind and address."""
    said = getattr(request.state, "hookware_who", None)
    if isinstance(said, str) and said:
        return said
    return otherwise if request.client is None else f"{otherwise} ({request.client.host})"
