"""canonical_url and split_url, against a list of tricks and an independent decoder."""

import string
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hookware.core.url import MAX_PATH_BYTES, MAX_QUERY_BYTES, canonical_url, split_url

UNRESERVED = string.ascii_letters + string.digits + "-._~"

REFUSED = [
    # another host, scheme or place, or none
    "", "worker", "?a=1", "#f", "//worker", "///worker", "//evil.example/worker", "http://evil/worker",
    "HTTP://evil/worker", "https:/worker", "javascript:alert(1)", "http:worker", "*", "\\\\evil\\worker", "/\\evil",
    # fragments, backslashes, spaces, controls
    "/worker#f", "/worker?a=1#f", "/#", "/a\\b", "/worker?a=\\", "/a b", "/worker?a=b c", " /worker", "/worker ",
    "/wor\tker", "/worker\r\nX: y", "/worker\n", "\n/worker", "/worker\x00", "/worker\x7f", "/worker\x1b[2J",
    "/worker\x85", "/worker?a=\x00", "/worker?a=1\n",
    # dot segments, raw and encoded
    "/x/../worker", "/./worker", "/..", "/.", "/worker/..", "/worker/.", "/%2e%2e/worker", "/%2E/worker",
    "/.%2e/worker", "/x/%2e./worker", "/x/..?a=1",
    # encoded separators and controls
    "/a%2fb", "/a%2Fb", "/%2f", "/a%5cb", "/a%5Cb", "/a%00b", "/worker%0d%0aX:%20y", "/worker%0a", "/%09", "/%7f",
    "/%1b", "/%C2%85", "/%c2%9f",
    # escapes that are none
    "/%", "/%4", "/%zz", "/%4g", "/100%", "/%u0041", "/worker?a=%", "/worker?a=%f", "/worker?a=%gg", "/%%41", "/%+1",
    "/% 1", "/%\uff11\uff12",
    # not UTF-8 after one decode
    "/%ff", "/%c3", "/%c3%28", "/%e2%82", "/%c0%af", "/%ed%a0%80", "/%f4%90%80%80", "/ü%ff", "/\ud800",
    "/worker?a=\udfff",
    # too long
    "/" + "a" * MAX_PATH_BYTES, "/" + "ü" * 347 + "a" * 2, "/w?" + "a" * (MAX_QUERY_BYTES + 1),
]  # fmt: skip

CANONICAL = {
    "/": "/",
    "/worker": "/worker",
    "/worker?": "/worker",
    "/worker??": "/worker??",
    "/worker?a=1&b=": "/worker?a=1&b=",
    "/worker?a=/../x": "/worker?a=/../x",
    "/worker?a=%0A%00%2f%5c%ff": "/worker?a=%0A%00%2F%5C%FF",
    "/worker?a=?b": "/worker?a=?b",
    "/%77orker": "/worker",
    "/%7Eme/%2dx%5F": "/~me/-x_",
    "/a%2eb": "/a.b",
    "/a..": "/a..",
    "/...": "/...",
    "/a//b": "/a//b",
    "/a//": "/a//",
    "/a/http://x": "/a/http://x",
    "/ü": "/%C3%BC",
    "/%c3%bc": "/%C3%BC",
    "/w?q=ü": "/w?q=%C3%BC",
    "/a%20b": "/a%20b",
    "/a+b": "/a+b",
    "/a%252fb": "/a%252fb",
    "/a%3fb%23": "/a%3Fb%23",
    '/{id}|"<>^`': "/%7Bid%7D%7C%22%3C%3E%5E%60",
    "/%7bid%7d": "/%7Bid%7D",
    "/!$&'()*+,;=:@[]": "/!$&'()*+,;=:@[]",
    "/%21%5B": "/%21%5B",
    "/" + "a" * (MAX_PATH_BYTES - 1): "/" + "a" * (MAX_PATH_BYTES - 1),
    "/w?" + "a" * MAX_QUERY_BYTES: "/w?" + "a" * MAX_QUERY_BYTES,
}


@pytest.mark.parametrize("url", REFUSED, ids=lambda url: ascii(url[:40]))
def test_a_url_that_is_not_plainly_a_path_of_this_app_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"is refused: .*; "):
        canonical_url(url)
    with pytest.raises(ValueError, match=r"is refused: .*; "):
        split_url(url)


@pytest.mark.parametrize(("url", "expected"), CANONICAL.items(), ids=lambda url: ascii(url[:40]))
def test_a_url_is_stored_in_one_spelling(url: str, expected: str) -> None:
    assert canonical_url(url) == expected
    assert canonical_url(expected) == expected


@pytest.mark.parametrize("character", ":?#[]@!$&'()*+,;=")
def test_an_escaped_reserved_character_stays_escaped(character: str) -> None:
    escape = f"%{ord(character):02X}"
    assert canonical_url(f"/a{escape.lower()}?b{escape}") == f"/a{escape}?b{escape}"


def test_a_refusal_names_the_value_the_rule_and_the_next_step() -> None:
    with pytest.raises(ValueError, match=r"'//evil/w'.*exactly one '/'.*give a path of this app"):
        canonical_url("//evil/w")
    with pytest.raises(ValueError, match=r"2084 bytes of 2083") as caught:
        canonical_url("/" + "a" * 2083)
    assert len(str(caught.value)) < 400


def test_the_parts_are_what_an_asgi_scope_carries() -> None:
    assert split_url("/caf%C3%A9%20noir?q=%C3%A9&r=%2F") == ("/café noir", b"/caf%C3%A9%20noir", b"q=%C3%A9&r=%2F")
    assert split_url("/w") == ("/w", b"/w", b"")


@pytest.mark.parametrize("url", ["/%77orker", "/w?", "/ü", "/%c3%bc"])
def test_only_the_canonical_spelling_is_split(url: str) -> None:
    with pytest.raises(ValueError, match="canonical"):
        split_url(url)


def escaped(text: str) -> st.SearchStrategy[str]:
    """Give every mixture of upper and lower case escapes for the UTF-8 bytes of a text."""
    return st.tuples(*(st.sampled_from([f"%{byte:02x}", f"%{byte:02X}"]) for byte in text.encode())).map("".join)


letters = st.one_of(
    st.sampled_from(UNRESERVED),
    st.sampled_from(UNRESERVED).flatmap(escaped),
    st.sampled_from(":@!$&'()*+,;=[]{}|\"<>^`"),
    st.sampled_from(" ?#%&=+:@{}\"").flatmap(escaped),
    st.characters(min_codepoint=0xA0, exclude_categories=["Cs", "Cc"]),
    st.characters(min_codepoint=0xA0, exclude_categories=["Cs", "Cc"]).flatmap(escaped),
)  # fmt: skip
hostile = st.one_of(
    st.sampled_from(["/", "//", ".", "..", "%2e", "%2E%2e", "%2f", "%5C", "\\"]),
    st.sampled_from(["%", "%0", "#", "?", "%00", "%ff", "%c3"]),
    st.characters(),
)  # fmt: skip
segments = st.lists(letters, max_size=6).map("".join)
good_paths = st.lists(segments, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
queries = st.lists(st.one_of(letters, st.sampled_from(["/", "?", "%0A", "%2F", "%ff"])), max_size=8).map("".join)
good_urls = good_paths | st.tuples(good_paths, queries).map("?".join)
any_urls = st.lists(st.one_of(letters, hostile), max_size=10).map(lambda parts: "/" + "".join(parts))


def reference_bytes(part: str) -> bytes:
    """Decode once, with nothing of ours: the bytes that a path or query means."""
    return unquote_to_bytes(part.encode("utf-8"))


def reference_accepts(url: str) -> bool:
    """Say by the rules' plain words whether a task may have this URL, without the limits of length."""
    if url[:1] != "/" or url[1:2] == "/" or any(c in "\\#" or c <= " " or "\x7f" <= c <= "\x9f" for c in url):
        return False
    hexadecimal = set(string.hexdigits)
    if any(len(rest[:2]) < 2 or not set(rest[:2]) <= hexadecimal for rest in url.split("%")[1:]):
        return False
    raw_path = url.split("?", 1)[0]
    try:
        url.encode("utf-8")
        decoded = reference_bytes(raw_path).decode("utf-8")
    except UnicodeError:
        return False
    hidden = decoded.count("/") != raw_path.count("/") or "\\" in decoded
    controls = any(ord(c) < 32 or 127 <= ord(c) <= 159 for c in decoded)
    dots = any(segment in {".", ".."} for segment in decoded.split("/"))
    return not (hidden or controls or dots)


@pytest.mark.slow
@given(st.one_of(good_urls, any_urls, st.text()))
@example("/%2e%2e/admin")
@example("/a/%2E")
def test_a_url_is_accepted_exactly_when_the_rules_allow_it(url: str) -> None:
    try:
        canonical_url(url)
        accepted = True
    except ValueError:
        accepted = False
    assert accepted == reference_accepts(url)


@pytest.mark.slow
@given(good_urls.filter(reference_accepts))
def test_the_canonical_url_means_what_was_written(url: str) -> None:
    canonical = canonical_url(url)
    raw_path, _, raw_query = url.partition("?")
    parts = split_url(canonical)
    assert parts.path == reference_bytes(raw_path).decode("utf-8")
    assert unquote_to_bytes(parts.raw_path) == reference_bytes(raw_path)
    assert unquote_to_bytes(parts.query_string) == reference_bytes(raw_query)
    assert canonical == parts.raw_path.decode() + ("?" + parts.query_string.decode() if parts.query_string else "")


@pytest.mark.slow
@given(good_urls.filter(reference_accepts))
def test_giving_the_canonical_url_again_changes_nothing(url: str) -> None:
    canonical = canonical_url(url)
    assert canonical_url(canonical) == canonical
    assert canonical.isascii()


@pytest.mark.slow
@given(st.lists(st.sampled_from(UNRESERVED + "üλ語"), min_size=1, max_size=8), st.data())
def test_all_spellings_of_a_path_are_one(characters: list[str], data: st.DataObject) -> None:
    plain = "/w" + "".join(characters)
    spelled = "/w" + "".join(data.draw(st.one_of(st.just(c), escaped(c))) for c in characters)
    assert canonical_url(spelled) == canonical_url(plain)
