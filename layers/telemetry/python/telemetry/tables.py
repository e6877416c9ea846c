"""Rows of an answer as JSON or as CSV, whichever the client asks for.

CSV as RFC 4180 has it, in UTF-8, with a header of the names that the fields have in JSON. A cell
reads as the value does in JSON, without quotation marks; a value that is null is an empty cell.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from pydantic import BaseModel

from telemetry.errors import NotAcceptable, TelemetryError
from telemetry.http import documents

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse

JSON, CSV = "application/json", "text/csv"

_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?", re.ASCII)

# A spreadsheet takes a text that begins so for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def answer_table(
    resolver: APIGatewayHttpResolver,
    answer: BaseModel,
    kind: type[BaseModel],
    rows: Sequence[BaseModel],
    next_cursor: str | None,
) -> Response[str]:
    """Answer in the form that the client prefers; the next page is linked to in the headers.

    kind is the model of the rows, which are those of the answer. Raises NotAcceptable.
    """
    event = resolver.current_event
    media_type = choose_media_type(event.headers.get("accept"), (JSON, CSV))
    headers = {"Vary": "Accept"}
    if next_cursor is not None:
        query = urlencode({**event.query_string_parameters, "cursor": next_cursor})
        # Relative to the URL asked for, which the function may not know (a custom domain's path).
        headers["Link"] = f'<?{query}>; rel="next"'
    if media_type == CSV:
        return Response(200, "text/csv; charset=utf-8", render_csv(kind, rows), headers)
    return Response(200, JSON, answer.model_dump_json(by_alias=True), headers)


def choose_media_type(accept: str | None, offered: Sequence[str]) -> str:
    """Return which of the media types a client prefers: the first where it does not care.

    As RFC 9110 (12.5.1) weighs them; parameters other than q are not looked at. Raises
    NotAcceptable.
    """
    if not accept:
        return offered[0]
    weights = dict(_weights(accept))

    def weight(media_type: str) -> float:
        kind = media_type.partition("/")[0]
        return next((weights[of] for of in (media_type, f"{kind}/*", "*/*") if of in weights), 0)

    best = max(offered, key=weight)
    if weight(best) <= 0:
        raise NotAcceptable(offered)
    return best


def _weights(accept: str) -> Iterator[tuple[str, float]]:
    for entry in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in entry.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if _WEIGHT.fullmatch(weight):
            yield media_range, float(weight)


def render_csv(kind: type[BaseModel], rows: Iterable[BaseModel]) -> str:
    """Return rows of one model as CSV.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_columns(kind))
    for row in rows:
        writer.writerow(map(_cell, row.model_dump(mode="json", by_alias=True).values()))
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return json.dumps(value)


def _columns(kind: type[BaseModel]) -> dict[str, str | None]:
    """Return a table's columns by name, each with its unit."""
    columns: dict[str, str | None] = {}
    for name, field in kind.model_fields.items():
        extra = field.json_schema_extra
        unit = extra.get("unit") if isinstance(extra, Mapping) else None
        columns[field.serialization_alias or name] = unit if isinstance(unit, str) else None
    return columns


def documents_table(
    answer: type[BaseModel], kind: type[BaseModel], *errors: type[TelemetryError]
) -> "dict[int, OpenAPIResponse]":
    """Return what a route of answer_table may answer with, for its OpenAPI documentation."""
    columns = _columns(kind)
    listed = ", ".join(
        f"`{name}` ({unit})" if unit else f"`{name}`" for name, unit in columns.items()
    )
    documented = documents(answer, 200, *errors, NotAcceptable)
    documented[200]["content"][CSV] = {
        "schema": {
            "type": "string",
            "description": f"RFC 4180 with a header; an empty cell is null. Columns: {listed}",
        },
    }
    return documented
