"""What no client should send: refused with a reason, never a 500, never a hang."""

import json
import random
import socket
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from helpers import Jobs
from web_server import Answer, WebServer

MIB = 1024 * 1024
GOOD = b'{"text": "I love it"}'


def post(client: FlaskClient, body: bytes, content_type: str = "application/json") -> TestResponse:
    return client.post("/predict", data=body, content_type=content_type)


def sized(size: int) -> bytes:
    """A good body of exactly that size."""
    return GOOD[:-1] + b" " * (size - len(GOOD)) + b"}"


def assert_problem(response: TestResponse, status: int) -> None:
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    assert response.get_json()["status"] == status


NOT_JSON = {
    "nothing": b"",
    "white space": b" \n",
    "a word": b"text",
    "cut off": b'{"text": "x"',
    "trailing comma": b'{"text": "x",}',
    "single quotes": b"{'text': 'x'}",
    "a comment": b'{"text": "x"} // x',
    "two values": b'{"text": "x"}{"text": "y"}',
    "control character": b'{"text": "a\nb"}',
    "raw NUL": b'{"text": "a\0b"}',
    "wrong escape": b'{"text": "\\x41"}',
    "leading zero": b'{"text": "x", "priority": 08}',
    "NaN": b'{"text": "x", "priority": NaN}',
    "Infinity": b'{"text": "x", "priority": Infinity}',
    "-Infinity": b'{"text": "x", "priority": -Infinity}',
    "NaN in a field that nobody knows": b'{"text": "x", "more": [NaN]}',
    "a field twice": b'{"text": "x", "text": "y"}',
    "a field twice, once escaped": b'{"text": "x", "\\u0074ext": "y"}',
    "a field twice, further in": b'{"text": "x", "more": [{"a": 1, "a": 1}]}',
    "5,000 digits": b'{"text": "x", "priority": ' + b"9" * 5000 + b"}",
    "deep lists": b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep and open": b"[" * 1_000_000,
    "invalid UTF-8": b'{"text": "\xff"}',
    "overlong UTF-8": b'{"text": "\xc0\xaf"}',
    "cut UTF-8": b'{"text": "\xe2\x82"}',
    "a surrogate in UTF-8": b'{"text": "\xed\xa0\x80"}',
    "Latin-1": '{"text": "schön"}'.encode("latin-1"),
    "a BOM": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": '{"text": "x"}'.encode("utf-16"),
    "UTF-16 without a BOM": '{"text": "x"}'.encode("utf-16-le"),
    "UTF-32": '{"text": "x"}'.encode("utf-32"),
    "a form": b"text=x",
    "gzip": bytes.fromhex("1f8b08000000000000ff"),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_strict_json_is_a_400(body: bytes, client: FlaskClient, jobs: Jobs) -> None:
    response = post(client, body)

    assert_problem(response, 400)
    assert jobs.count() == 0


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=80))
def test_any_bytes_are_refused_unless_they_are_a_good_body(
    body: bytes, client: FlaskClient
) -> None:
    response = post(client, body)

    assert_problem(response, 422 if is_strict_json(body) else 400)


def is_strict_json(body: bytes) -> bool:
    # Short random bytes repeat no key and name no NaN often enough to tell here.
    try:
        json.loads(body.decode("utf-8"))
    except ValueError:
        return False
    return b"NaN" not in body and b"Infinity" not in body


names = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=values, known=st.dictionaries(st.sampled_from(["text", "model", "priority"]), values))
def test_any_json_is_accepted_or_refused_in_good_order(
    body: Any, known: dict[str, Any], client: FlaskClient
) -> None:
    body = body | known if isinstance(body, dict) else body

    response = post(client, json.dumps(body).encode())

    assert response.status_code in (202, 400, 422)
    assert json.loads(response.data)["status"] in ("processing", 400, 422)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
     "application/jsonp", "application/vnd.api+json", "json", "application/json; charset=utf-16",
     "application/json; charset=latin-1", "\xff", "*/*"],
)  # fmt: skip
def test_another_content_type_is_a_415(content_type: str, client: FlaskClient) -> None:
    assert_problem(post(client, GOOD, content_type), 415)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8",
     'application/json;charset="UTF-8"', "application/json; version=1"],
)  # fmt: skip
def test_json_is_known_however_it_is_written(content_type: str, client: FlaskClient) -> None:
    assert post(client, GOOD, content_type).status_code == 202


def test_a_compressed_body_is_a_415(client: FlaskClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    assert_problem(client.post("/predict", data=GOOD, headers=headers), 415)


def test_a_body_of_1_mib_is_read_and_a_byte_more_is_a_413(client: FlaskClient) -> None:
    assert post(client, sized(MIB)).status_code == 202
    assert_problem(post(client, sized(MIB + 1)), 413)


# From here on: a real gunicorn, and bytes as they are.


def request(
    body: bytes = GOOD,
    *,
    line: bytes = b"POST /predict HTTP/1.1",
    more: bytes = b"",
    length: int | None = None,
) -> bytes:
    size = len(body) if length is None else length
    return (
        line + b"\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        + more + b"Content-Length: %d\r\n\r\n" % size + body
    )  # fmt: skip


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def assert_raw(answer: Answer | None, status: int) -> None:
    assert answer
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == status


@pytest.mark.process
def test_a_chunked_body_is_read_like_any_other(gunicorn: WebServer) -> None:
    answer = gunicorn.raw(chunked(GOOD[:5], GOOD[5:]))

    assert answer
    assert (answer.status, answer.json["status"]) == (202, "processing")


@pytest.mark.process
@pytest.mark.parametrize(
    "end",
    [b"", b"5\r\nab", b"zz\r\n", b"-1\r\n\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n", b"0\r\n",
     b"\r\n\r\n", b"f" * 9000, b"0\r\nTrailer\r\n\r\n", b"1;" + b"x" * 9000 + b"\r\n"],
)  # fmt: skip
def test_a_broken_chunked_body_is_a_400(end: bytes, gunicorn: WebServer) -> None:
    assert_raw(gunicorn.raw(chunked(GOOD, end=end)), 400)


@pytest.mark.process
def test_a_body_that_ends_before_its_length_is_a_400(gunicorn: WebServer) -> None:
    assert_raw(gunicorn.raw(request(GOOD[:-1], length=len(GOOD))), 400)


@pytest.mark.process
def test_a_chunked_body_of_more_than_1_mib_is_a_413(gunicorn: WebServer) -> None:
    body = sized(MIB + 1)

    assert_raw(gunicorn.raw(chunked(body[: MIB // 2], body[MIB // 2 :])), 413)


@pytest.mark.process
@pytest.mark.parametrize("length", [MIB + 1, 10 * MIB, 10**15])
def test_a_length_of_more_than_1_mib_is_a_413_before_the_body_is_sent(
    length: int, gunicorn: WebServer
) -> None:
    assert_raw(gunicorn.raw(request(b"", length=length), end=False), 413)


@pytest.mark.process
def test_clients_that_stop_in_the_middle_do_not_keep_others_from_being_served(
    gunicorn: WebServer,
) -> None:
    half_body = request(GOOD[:-1], length=len(GOOD))
    halves = [b"POST /pre", request()[:60], half_body, chunked(end=b"5\r\n")]
    stalled = []
    for half in halves * 10:
        connection = socket.create_connection(("127.0.0.1", gunicorn.port))
        connection.sendall(half)
        stalled.append(connection)

    answer = gunicorn.predict()

    assert answer.status == 202
    for connection in stalled:
        connection.close()


def hostile_requests() -> Iterator[bytes]:
    """Two hundred and more, the same in each run."""
    yield from map(request, NOT_JSON.values())
    yield from (chunked(body) for body in NOT_JSON.values() if body)
    yield from (
        request(json.dumps(fields).encode())
        for fields in (
            {"text": "\0"},
            {"text": "\ud800"},
            {"text": "a\udfff\ud800"},
            {"text": "x", "\ud800": 1},
            {"text": "x" * 10_001},
            {"text": "x", "model": "\0"},
            {"text": "x", "model": "'; drop table job; --"},
            {"text": "x", "priority": 10**300},
            {"text": {"$gt": ""}},
            {f"k{number}": number for number in range(60_000)},
        )
    )
    paths = [
        b"/jobs/%s", b"/jobs?cursor=%s", b"/jobs?limit=%s", b"/jobs?status=%s", b"/jobs?%s=1",
        b"/%s", b"/docs/%s",
    ]  # fmt: skip
    parts = [
        b"%00", b"%ff%fe", b"..%2f..%2fetc%2fpasswd", b"' or 1=1 --", b"%27%20or%201=1",
        b"\xff\xfe", b"%", b"%zz", b"{}", b"a" * 3000, b"%f0%9f%98%80", b"1;select", b"<script>",
        b"%0d%0aSet-Cookie:%20a=b",
    ]  # fmt: skip
    for path, part in product(paths, parts):
        yield request(b"", line=b"GET " + path % part + b" HTTP/1.1")
    yield from (
        request(more=header + b"\r\n")
        for header in (
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Content-Encoding: gzip",
            b"Expect: 100-continue",
            b"Expect: something",
            b"X: " + b"x" * 9000,
            b"X: \0",
            b"X: \xff\xfe",
            b": no name",
            b"Host: y",
            b"Prefer: wait=99999999999999999999",
            b"Idempotency-Key: " + b"k" * 5000,
            b"If-None-Match: \xff",
            b"X-Forwarded-Host: \xff'\"",
            b"\r\n".join(b"X-%d: x" % number for number in range(200)),
        )
    )
    yield from (
        request(line=line)
        for line in (
            b"POST /predict HTTP/9.9", b"POST /predict", b"POST", b"\0\0\0 /predict HTTP/1.1",
            b"POST http://other.example/predict HTTP/1.1", b"POST * HTTP/1.1", b"BREW / HTTP/1.1",
            b"POST /predict?" + b"q" * 9000 + b" HTTP/1.1", b"CONNECT x:1 HTTP/1.1",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"post /predict HTTP/1.1",
            b"PRI * HTTP/2.0",
        )
    )  # fmt: skip
    noise = random.Random(2)
    yield from (noise.randbytes(200) for _ in range(10))


@pytest.mark.process
def test_two_hundred_hostile_requests_and_the_next_good_one(gunicorn: WebServer) -> None:
    hostile = list(hostile_requests())
    assert len(hostile) >= 200

    workers = gunicorn.workers()
    answers = [(sent, gunicorn.raw(sent)) for sent in hostile]

    for sent, answer in answers:
        if answer is None:
            assert b"\r\n\r\n" not in sent, sent[:200]  # noise, not even a head
            continue
        assert answer.status < 500 or answer.status == 501, sent[:200]
        if answer.headers["Content-Type"] == "application/problem+json":
            assert answer.json["status"] == answer.status
    assert gunicorn.predict().status == 202
    assert gunicorn.send("GET", "/readyz").status == 200
    assert gunicorn.workers() == workers


@pytest.mark.process
def test_a_body_that_ends_before_its_length_is_refused(gunicorn: WebServer) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

    answer = gunicorn.raw(head + b'Content-Length: 100\r\n\r\n{"text": "cut"}')

    assert answer
    assert answer.status == 400


@pytest.mark.process
@pytest.mark.parametrize("length", [b"x", b"-1", b"1, 2", b"5\r\nContent-Length: 6"])
def test_a_head_that_makes_no_sense_is_answered(gunicorn: WebServer, length: bytes) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: "

    answer = gunicorn.raw(head + length + b"\r\n\r\n{}")

    assert answer
    assert answer.status == 400


@pytest.mark.process
@pytest.mark.parametrize("header", [b"PATH_INFO: /livez", b"SCRIPT_NAME: /no"])
def test_no_header_moves_the_app_to_another_path(gunicorn: WebServer, header: bytes) -> None:
    sent = request(b"", line=b"GET /no/livez HTTP/1.1", more=header + b"\r\n")

    answer = gunicorn.raw(sent)

    assert answer
    assert answer.status in (400, 404)
    assert b"ok" not in answer.body
