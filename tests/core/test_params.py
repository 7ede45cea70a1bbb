"""encode_params and decode_params: App Engine's meaning of params, and the way back."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.params import FORM_TYPE, MAX_FIELDS, decode_params, encode_params

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.mark.parametrize(
    ("params", "encoded"),
    [
        ({}, ""),
        ({"a": 1, "b": [1, 2, "x"], "c": "ü"}, "a=1&b=1&b=2&b=x&c=%C3%BC"),
        ({"a": []}, ""),
        ({"a": None}, "a=None"),
        ({"a": True}, "a=True"),
        ({"a": 1.5}, "a=1.5"),
        ({"a": ("x", "y")}, "a=x&a=y"),
        ({"a": {"k": "v"}}, "a=k"),
        ({"a": (str(n) for n in range(2))}, "a=0&a=1"),
        ({"a": b"\x00\xff"}, "a=%00%FF"),
        ({"a": [b"x", None]}, "a=x&a=None"),
        ({"a": ""}, "a="),
        ({1: "x y&z=\n"}, "1=x+y%26z%3D%0A"),
        ({"~a/b": "~-._/"}, "~a%2Fb=~-._%2F"),
    ],
)
def test_params_are_encoded_as_in_app_engine(params: dict[str, object], encoded: str) -> None:
    assert encode_params(params) == encoded


def test_a_value_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        encode_params({"a": "\ud800"})


@pytest.mark.slow
@given(st.dictionaries(texts, st.one_of(texts, st.lists(texts, min_size=1, max_size=3))))
def test_what_is_encoded_is_decoded_again(params: dict[str, str | list[str]]) -> None:
    expected = {key: [value] if isinstance(value, str) else value for key, value in params.items()}
    encoded = encode_params(params)
    assert decode_params("POST", FORM_TYPE, b"", encoded.encode("ascii")) == expected
    assert decode_params("GET", None, encoded.encode("ascii"), b"") == expected
    assert sorted(parse_qsl(encoded, keep_blank_values=True)) == sorted((k, v) for k in expected for v in expected[k])


@given(st.lists(st.sampled_from(["a", "b", "=", "&", "+", "%", "%2", "%26", "%C3%BC", "%ff", "ü", ";"]), max_size=12))
def test_whatever_comes_is_read_as_by_the_standard_library(pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError:
        with pytest.raises(ValueError, match="utf-8"):
            decode_params("POST", FORM_TYPE, b"", text.encode())
        return
    expected: dict[str, list[str]] = {}
    for name, value in pairs:
        expected.setdefault(name, []).append(value)
    assert decode_params("POST", FORM_TYPE, b"", text.encode()) == expected


def test_fields_of_the_query_come_before_those_of_the_form() -> None:
    fields = decode_params("POST", "Application/X-WWW-Form-URLEncoded; charset=utf-8", b"a=1&b=", b"a=2&c=x+y")
    assert fields == {"a": ["1", "2"], "b": [""], "c": ["x y"]}


@pytest.mark.parametrize("method", ["GET", "head", "DELETE"])
def test_the_body_of_a_request_without_one_is_not_read(method: str) -> None:
    assert decode_params(method, FORM_TYPE, b"a=1", b"a=2") == {"a": ["1"]}


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/json", FORM_TYPE + "2"])
def test_a_body_of_another_type_is_not_read(content_type: str | None) -> None:
    assert decode_params("POST", content_type, b"", b"a=1") == {}


@pytest.mark.parametrize("encoded", [b"a=%ff", b"a=\xff", b"%c3=1", b"a=%ed%a0%80"])
def test_fields_that_are_not_utf8_are_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        decode_params("GET", None, encoded, b"")
    with pytest.raises(ValueError, match="utf-8"):
        decode_params("POST", FORM_TYPE, b"", encoded)


def test_the_number_of_fields_is_limited_over_query_and_form_together() -> None:
    most = b"&".join([b"a=1"] * MAX_FIELDS)
    assert len(decode_params("POST", FORM_TYPE, b"", most)["a"]) == MAX_FIELDS
    with pytest.raises(ValueError, match="fields"):
        decode_params("POST", FORM_TYPE, b"", most + b"&a=1")
    with pytest.raises(ValueError, match="fields"):
        decode_params("POST", FORM_TYPE, b"a=1", most)
