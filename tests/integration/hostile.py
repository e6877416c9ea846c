"""Requests that nobody should send, and what has to become of each of them.

The reference for what is a reading is written anew here, from docs/openapi.json's words: it shares
nothing with telemetry.readings.
"""

import base64
import gzip
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, quote_from_bytes

from hypothesis import strategies as st

ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII)
MOST_DEPTH = 150
MOST_BYTES = {False: 16 * 1024, True: 6 * 1024 * 1024}

# What an answer never has, whatever was asked: of Python, of SQL, of the server.
LEAK = re.compile(
    r"Traceback|File \"|\.py\b|psycopg|pydantic|SQLSTATE|SELECT |INSERT |UPDATE |pg_|plpgsql|"
    r"_telemetry_history|_live_status|postgresql:|errors\.|Exception|0x[0-9a-f]{8}"
)


@dataclass(frozen=True)
class Sent:
    """A request: the body that is meant, before it was compressed, for whom it is known."""

    method: str
    path: str  # as in a URL: percent-encoded
    query: str = ""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    meant: bytes | None = None


# --- The reference -------------------------------------------------------------------------------


class Undecided(Exception):
    """Valid or not is a matter of taste: thousands of digits, hundreds of brackets in brackets."""


def expected_readings(stream: str, body: bytes, *, many: bool) -> list[bool] | None:
    """Return for each item whether it is a reading; None where the body as a whole is refused."""
    if len(body) > MOST_BYTES[many]:
        return None
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=list_pairs, parse_constant=refuse)
        if depth(value) > MOST_DEPTH:
            raise Undecided
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair
    except RecursionError:
        return None
    except ValueError as error:
        if "digits" in str(error):
            raise Undecided from None
        return None
    if not many:
        return [True] if is_reading(stream, value) else None
    if not isinstance(value, list) or isinstance(value, Pairs) or not 1 <= len(value) <= 10_000:
        return None
    return [is_reading(stream, item) for item in value]


def depth(value: object) -> int:
    return 1 + max(map(depth, value), default=0) if isinstance(value, list | tuple) else 0


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written."""


def list_pairs(pairs: list[tuple[str, Any]]) -> Pairs:
    return Pairs(pairs)


def refuse(constant: str) -> None:
    raise ValueError(constant)


def is_reading(stream: str, value: object) -> bool:
    if not isinstance(value, Pairs):
        return False
    names = [name for name, _ in value]
    found = dict(value)
    rules: dict[str, Callable[[Any], bool]] = RULES[stream]
    return (
        len(names) == len(found)
        and found.keys() <= rules.keys()
        and rules.keys() - found.keys() <= {"soc", "meterId" if stream == "vehicle" else "soc"}
        and all(rules[name](each) for name, each in value)
    )


def is_number(least: float, most: float) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (isinstance(value, int) or math.isfinite(value)) and least <= value <= most

    return check


def is_id(value: object) -> bool:
    return isinstance(value, str) and bool(ID.fullmatch(value)) and value not in {".", ".."}


def is_time(value: object) -> bool:
    if not isinstance(value, str) or not TIME.fullmatch(value):
        return False
    leaps = value[17:19] == "60"
    try:
        text = value[:17] + "59" + value[19:] if leaps else value
        time = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    if leaps and (time.hour, time.minute) != (23, 59):
        return False
    return datetime(2000, 1, 1, tzinfo=UTC) < time <= datetime.now(UTC) + timedelta(minutes=5)


def or_null(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


RULES: dict[str, dict[str, Callable[[Any], bool]]] = {
    "meter": {
        "meterId": is_id,
        "kwhConsumedAc": is_number(0, 10_000),
        "voltage": is_number(0, 1_000),
        "timestamp": is_time,
    },
    "vehicle": {
        "vehicleId": is_id,
        "soc": or_null(is_number(0, 100)),
        "kwhDeliveredDc": is_number(0, 10_000),
        "batteryTemp": is_number(-60, 150),
        "meterId": or_null(is_id),
        "timestamp": is_time,
    },
}

# --- What is sent --------------------------------------------------------------------------------

IDS = st.sampled_from(["M-1", "METER-001", "VEH-001", "a" * 64, "A.b_c:d-9", "x", "MTR_7"])
HOSTILE_TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "\0",
            "a\0b",
            "a" * 65,
            "M-1\n",
            "../../etc/passwd",
            ".",
            "..",
            "' OR 1=1 --",
            "'; DROP TABLE links; --",
            "${jndi:ldap://x}",
            "{{7*7}}",
            "%00",
            "%s%n",
            "\u202e",
            "\ufeffM-1",
            "ＭＥＴＥＲ",
            "²",
            "2024-02-30T00:00:00Z",
            "0000-00-00T00:00:00Z",
            "9999-12-31T23:59:59-14:00",
            "2024-01-01T00:00:60Z",
            "2024-01-01T00:59:60+01:00",
            "2000-01-01T00:00:00Z",
            "null",
            "true",
            "NaN",
            "-Infinity",
        ]
    ),
    st.text(max_size=40),
)
NUMBERS = st.one_of(
    st.sampled_from(
        ["0", "-0", "-0.0", "1e-400", "1e400", "-1", "10000", "10000.0000000001", "1E+2", "0e0"]
        + ["1" * 400, "9" * 5_000, "0." + "1" * 400, "1e99999999999", "00", "1.", ".5", "+1", "0x1"]
        + ["NaN", "Infinity", "-Infinity", "1_0", "١"]
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers().map(str),
)
JSON_TEXTS = st.one_of(
    HOSTILE_TEXTS.map(json.dumps),
    HOSTILE_TEXTS.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(['"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\x"', '"', "'a'", '"\t"']),
)
NESTED = st.one_of(
    st.integers(0, 500).map(lambda depth: "[" * depth + "]" * depth),
    st.integers(0, 500).map(lambda depth: '{"a":' * depth + "1" + "}" * depth),
    st.integers(0, 30_000).map(lambda depth: "[" * depth),
    st.integers(0, 5_000).map(lambda count: "[" + "[]," * count + "[]]"),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        ),
        max_leaves=10,
    ).map(json.dumps),
)
HOSTILE_VALUES = st.one_of(
    st.sampled_from(["null", "true", "false", "", "{}", "[]"]), NUMBERS, JSON_TEXTS, NESTED
)
TIMES = st.datetimes(
    datetime(2024, 1, 1),  # noqa: DTZ001 - made a text with an offset
    datetime(2025, 1, 1),  # noqa: DTZ001
).map(lambda time: time.isoformat() + "Z")

GOOD: dict[str, dict[str, st.SearchStrategy[str]]] = {
    "meter": {
        "meterId": IDS.map(json.dumps),
        "kwhConsumedAc": st.floats(0, 10_000).map(repr),
        "voltage": st.floats(0, 1_000).map(repr),
        "timestamp": TIMES.map(json.dumps),
    },
    "vehicle": {
        "vehicleId": IDS.map(json.dumps),
        "soc": st.floats(0, 100).map(repr) | st.just("null"),
        "kwhDeliveredDc": st.floats(0, 10_000).map(repr),
        "batteryTemp": st.floats(-60, 150).map(repr),
        "meterId": IDS.map(json.dumps) | st.just("null"),
        "timestamp": TIMES.map(json.dumps),
    },
    "acknowledgement": {"by": HOSTILE_TEXTS.map(json.dumps), "why": HOSTILE_TEXTS.map(json.dumps)},
    "link": {
        "meterId": IDS.map(json.dumps),
        "validFrom": TIMES.map(json.dumps) | st.just("null"),
    },
    "tariff": {
        "currency": st.just('"EUR"'),
        "timeZone": st.sampled_from(['"Europe/Berlin"', '"UTC"', '"right/UTC"', '"Factory"']),
        "pricePerKwh": st.sampled_from(["0", "0.3", "1e6"]),
        "kgCo2PerKwh": st.sampled_from(["0.4", "null", "100"]),
        "periods": st.sampled_from(
            [
                "[]",
                '[{"days": ["sun"], "from": "22:00", "to": "06:00", "pricePerKwh": 0.2}]',
                '[{"days": ["mon"], "from": "00:00", "to": "24:00", "to": "1", "pricePerKwh": 1}]',
            ]
        ),
        "validFrom": st.just('"2026-01-01T00:00:00Z"') | TIMES.map(json.dumps),
        "validTo": st.just("null") | TIMES.map(json.dumps),
    },
}


@st.composite
def objects(draw: st.DrawFn, kind: str) -> str:
    """Return the text of a reading, of which something may be wrong."""
    good = GOOD[kind]
    pairs = [(json.dumps(name), draw(value)) for name, value in good.items()]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 4]))):
        place = draw(st.integers(0, len(pairs) - 1)) if pairs else 0
        change = draw(st.sampled_from(["value", "drop", "repeat", "name", "escape", "more"]))
        if change == "more" or not pairs:
            name = draw(HOSTILE_TEXTS.map(json.dumps) | JSON_TEXTS)
            pairs.insert(place, (name, draw(HOSTILE_VALUES)))
        elif change == "value":
            pairs[place] = (pairs[place][0], draw(HOSTILE_VALUES))
        elif change == "drop":
            del pairs[place]
        elif change == "repeat":
            again = draw(st.booleans())
            value = pairs[place][1] if again else draw(HOSTILE_VALUES)
            pairs.insert(draw(st.integers(0, len(pairs))), (pairs[place][0], value))
        elif change == "name":
            pairs[place] = (draw(JSON_TEXTS), pairs[place][1])
        elif len(pairs[place][0]) > 3:
            name = pairs[place][0]
            pairs[place] = (f'"\\u{ord(name[1]):04x}{name[2:]}', pairs[place][1])
    space = draw(st.sampled_from(["", "", " ", "\n\t", "\0", "\xa0"]))
    return "{" + ",".join(f"{space}{name}:{space}{value}" for name, value in pairs) + "}"


@st.composite
def bodies(draw: st.DrawFn, kind: str, *, many: bool) -> bytes:
    """Return the bytes of a body, which may be broken once more."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    if many:
        items = draw(st.lists(objects(kind) | objects(kind) | HOSTILE_VALUES, max_size=6))
        times = draw(st.sampled_from([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 30]))
        text = "[" + ",".join(items * times) + "]"
    else:
        text = draw(objects(kind) | objects(kind) | objects(kind) | HOSTILE_VALUES)
    encoding = draw(st.sampled_from(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "utf-32", "latin-1"]))
    body = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 1, 3]))):
        place = draw(st.integers(0, len(body)))
        junk = draw(
            st.sampled_from([b"\0", b"\xff", b"\xed\xa0\x80", b'"', b"}", b"\\", b",", b""])
        )
        body = body[:place] + junk + body[place + draw(st.integers(0, 2)) :]
    return body


MEDIA_TYPES = st.sampled_from(
    ["application/json"] * 4
    + ["application/json; charset=utf-16", "text/plain", "application/octet-stream", ""]
    + ["application/x-www-form-urlencoded", "multipart/form-data", "image/png", "\xff", "/"]
)
HEADER_TEXTS = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30
)
FLOOD = {f"X-Flood-{number}": "x" * 100 for number in range(80)}


@st.composite
def posts(draw: st.DrawFn) -> Sent:
    """Return a request to one of the routes that take a body."""
    method, path, kind, many = draw(
        st.sampled_from(
            [
                ("POST", "/ingest/meter", "meter", False),
                ("POST", "/v1/ingestion/meter", "meter", False),
                ("POST", "/v1/ingestion/meter/batch", "meter", True),
                ("POST", "/ingest/vehicle", "vehicle", False),
                ("POST", "/v1/ingestion/vehicle", "vehicle", False),
                ("POST", "/v1/ingestion/vehicle/batch", "vehicle", True),
                ("PUT", "/v1/links/{id}", "link", False),
                ("PUT", "/v1/tariffs/fleet", "tariff", False),
                ("PUT", "/v1/tariffs/meters/{id}", "tariff", False),
                ("POST", "/v1/analytics/faults/{fault}/acknowledge", "acknowledgement", False),
            ]
        )
    )
    path = path.replace("{id}", draw(IDS.map(quote) | path_ids()))
    path = path.replace("{fault}", draw(st.uuids().map(str) | path_ids()))
    meant: bytes | None = draw(bodies(kind, many=many))
    body = meant or b""
    headers = {"Content-Type": draw(MEDIA_TYPES)}
    packed = draw(st.sampled_from(["no"] * 6 + ["gzip", "gzip", "cut", "false", "other", "twice"]))
    if packed != "no":
        headers["Content-Encoding"] = "gzip" if packed != "other" else draw(HEADER_TEXTS)
        body = body if packed == "false" else gzip.compress(body, 1)
        if packed == "cut":
            body = body[: draw(st.integers(0, len(body)))]
        elif packed == "twice":
            body = gzip.compress(body)
        if packed != "gzip":
            meant = None
    if draw(st.integers(0, 9)) == 0:
        headers |= FLOOD
    headers |= draw(st.dictionaries(st.sampled_from(["Accept", "Cookie", "X-Y"]), HEADER_TEXTS))
    query = draw(queries({})) if draw(st.integers(0, 9)) == 0 else ""
    return Sent(method, path, query, body, headers, meant)


@st.composite
def path_ids(draw: st.DrawFn) -> str:
    """Return what stands for an id in a URL."""
    return draw(
        st.one_of(
            IDS,
            HOSTILE_TEXTS.map(lambda text: quote(text.encode("utf-8", "replace"), safe="")),
            st.binary(min_size=1, max_size=20).map(quote_from_bytes),
            st.sampled_from(
                ["%2F", "a%2Fb", "%2e%2e", "%00", "%0a", "%25", "a" * 8_000, "%ff", ";"]
            ),
        )
    )


def cursor(position: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).rstrip(b"=").decode()


ANY_TIMES = TIMES | st.sampled_from(
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2024-01-01T00:00:00"]
    + ["1999-12-31T00:00:00Z", "2099-12-31T23:59:59.999999Z", 0, 1e18, None]
)
ANY_RANKS = st.one_of(
    st.sampled_from(["NaN", "sNaN", "Infinity", "-Infinity", "1e999999", "1e-999999", "9" * 400]),
    st.floats(),
    st.integers(),
    HOSTILE_TEXTS,
)


def cursors(*names: str) -> st.SearchStrategy[str]:
    """Return cursors with these fields, and what is none at all."""
    kinds: dict[str, st.SearchStrategy[Any]]
    kinds = {
        "id": st.uuids().map(str) | HOSTILE_TEXTS,
        "rank": ANY_RANKS,
        "sort": st.sampled_from(["cost", "energy"]) | HOSTILE_TEXTS,
        "erasure_id": st.uuids().map(str) | HOSTILE_TEXTS,
        "stream": st.sampled_from(["meter", "vehicle", "METER"]) | HOSTILE_TEXTS,
        "device_id": IDS | HOSTILE_TEXTS,
        "vehicle_id": IDS | HOSTILE_TEXTS,
    }
    fields = {name: kinds.get(name, ANY_TIMES) for name in names}
    return st.fixed_dictionaries(fields).map(cursor) | st.binary(max_size=30).map(quote_from_bytes)


ENCODED_TEXTS = HOSTILE_TEXTS.map(lambda text: quote(text.encode("utf-8", "replace"), safe=""))
ANY_INSTANTS = st.sampled_from(
    ["now", "2000-01-01T00:00:00Z", "2099-12-31T23:59:59Z", "0001-01-01T00:00:00Z"]
) | TIMES.map(quote)
ANY_COUNTS = NUMBERS.map(quote) | st.sampled_from(["1", "1000", "8784", "1,2"])
ANY_STATUS = st.sampled_from(
    ["online", "stale", "healthy", "fault", "insufficient", "online,stale"]
)
ANY_ZONE = st.sampled_from(["Asia/Kolkata", "right/UTC", "../zone.tab", "UTC,UTC", "Pacific/Apia"])
BY_DEVICE = {"status": ANY_STATUS, "limit": ANY_COUNTS, "cursor": cursors("device_id")}
WINDOW = {"end": ANY_INSTANTS, "hours": ANY_COUNTS}
RECEIPTS = {
    "from": ANY_INSTANTS,
    "to": ANY_INSTANTS,
    "limit": ANY_COUNTS,
    "tz": ANY_ZONE,
    "cursor": cursors("start", "end", "timestamp", "received_at"),
}
# The routes that read, or that end a link, with their parameters.
QUESTIONS: dict[str, dict[str, st.SearchStrategy[str]]] = {
    "/v1/analytics/performance": {
        "vehicleIds": st.sampled_from(["VEH-001,V-1", "," * 200, "V-1,", "V" * 65]) | path_ids(),
        **WINDOW,
    },
    "/v1/analytics/performance/{id}": WINDOW,
    "/v1/analytics/fleet": {
        "status": ANY_STATUS,
        "limit": ANY_COUNTS,
        "cursor": cursors("start", "end", "rank", "vehicle_id", "sort"),
        "sort": st.sampled_from(["cost", "energy", "COST"]),
        **WINDOW,
    },
    "/v1/analytics/faults": {
        "state": st.sampled_from(["open", "cleared", "acknowledged", "open,cleared"]),
        "vehicleId": path_ids(),
        "limit": ANY_COUNTS,
        "cursor": cursors("opened_at", "id"),
    },
    "/v1/analytics/vehicles/{id}/trend": {
        "bucket": st.sampled_from(["hour", "day", "year"]),
        "buckets": ANY_COUNTS,
        "end": ANY_INSTANTS,
        "tz": ANY_ZONE,
    },
    "/v1/live/meters": BY_DEVICE,
    "/v1/live/meters/{id}": {},
    "/v1/live/vehicles": {**BY_DEVICE, "charging": st.sampled_from(["true", "1", "yes", "2"])},
    "/v1/live/vehicles/{id}": {},
    "/v1/meters/{id}/readings": RECEIPTS,
    "/v1/vehicles/{id}/readings": RECEIPTS,
    "/v1/links/{id}": {
        "validTo": ANY_INSTANTS,
        "limit": ANY_COUNTS,
        "cursor": ANY_INSTANTS | cursors("device_id"),
    },
    "/v1/voids": {
        "meterId": path_ids(),
        "vehicleId": path_ids(),
        "limit": ANY_COUNTS,
        "cursor": cursors("at", "stream", "device_id", "timestamp"),
    },
    "/v1/erasures": {"limit": ANY_COUNTS, "cursor": cursors("at", "erasure_id")},
    "/v1/devices": {"limit": ANY_COUNTS, "cursor": cursors("device_id")},
    "/v1/devices/{id}": {},
    "/v1/tariffs/fleet": {"validFrom": ANY_INSTANTS},
    "/v1/tariffs/meters/{id}": {"validFrom": ANY_INSTANTS},
    "/": {},
    "/health": {},
    "/{id}": {},
}


@st.composite
def queries(draw: st.DrawFn, known: Mapping[str, st.SearchStrategy[str]]) -> str:
    """Return a query string: parameters that a route knows, and others, some of them twice."""
    pairs: list[tuple[str, str]] = []
    wanted = draw(st.integers(0, 4))
    for _ in range(wanted):
        chosen = draw(st.integers(0, 3))
        if known and chosen:
            name = draw(st.sampled_from(sorted(known)))
            pairs.append((name, draw(known[name] | known[name] | ENCODED_TEXTS)))
        else:
            name = draw(st.sampled_from(["format", "%00", "", "limit%5B%5D", "LIMIT", "%ff"]))
            pairs.append((name, draw(ENCODED_TEXTS | st.sampled_from(["%ff", "&", "=", "%"]))))
    if pairs and draw(st.integers(0, 4)) == 0:
        pairs.append(draw(st.sampled_from(pairs)))
    return "&".join(f"{name}={value}" for name, value in pairs)


@st.composite
def questions(draw: st.DrawFn) -> Sent:
    """Return a request to one of the routes that read, or that end a link."""
    route = draw(st.sampled_from(sorted(QUESTIONS)))
    path = route.replace("{id}", draw(path_ids()))
    method = draw(st.sampled_from(["GET"] * 5 + ["DELETE", "DELETE", "HEAD", "OPTIONS", "PATCH"]))
    body = draw(st.just(b"") | st.binary(max_size=50) | NESTED.map(str.encode))
    accept = st.sampled_from(
        ["text/csv", "application/json", "image/png", "*/*;q=0", "text/csv;q=²"]
    )
    headers = draw(
        st.fixed_dictionaries(
            {}, optional={"Accept": accept | HEADER_TEXTS, "Content-Type": MEDIA_TYPES}
        )
    )
    return Sent(method, path, draw(queries(QUESTIONS[route])), body, headers)
