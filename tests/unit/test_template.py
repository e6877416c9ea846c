"""What the local stack reads from template.yaml."""

from pathlib import Path

import pytest

from local import ROOT, LocalError
from local.databases import DatabaseUrls
from local.gateway import _pattern
from local.template import Route, read_template

URLS = DatabaseUrls("postgresql://owner", "postgresql://ingest", "postgresql://read")

CONTRACTS = {
    "GET /",
    "GET /health",
    "POST /ingest/meter",
    "POST /ingest/vehicle",
    "POST /v1/ingestion/meter",
    "POST /v1/ingestion/vehicle",
    "GET /v1/analytics/performance/{vehicleId}",
}


def test_the_template_routes_both_contracts() -> None:
    template = read_template(ROOT / "template.yaml", URLS.parameters)
    assert {route.key for route in template.routes} >= CONTRACTS
    for function in template.functions.values():
        assert function.file.is_file()
    assert {
        name: function.environment["DATABASE_URL"] for name, function in template.functions.items()
    } == {
        "IngestMeterFunction": URLS.ingest,
        "IngestVehicleFunction": URLS.ingest,
        "AnalyticsFunction": URLS.read,
        "MigrateFunction": URLS.owner,
    }


def test_an_unknown_reference_is_named() -> None:
    with pytest.raises(LocalError, match="refers to Ref IngestDatabaseUrl, unknown here"):
        read_template(ROOT / "template.yaml", {})


def test_an_unknown_function_of_the_template_language_is_named(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(
        """
Resources:
  One:
    Type: AWS::Serverless::Function
    Properties:
      Handler: api.handler
      CodeUri: functions/one
      Environment: {Variables: {QUEUE: !GetAtt Queue.Arn}}
""",
        encoding="utf-8",
    )
    with pytest.raises(LocalError, match=r"One refers to Fn::GetAtt Queue.Arn"):
        read_template(template, {})


def test_path_variables_match_one_segment_or_the_rest() -> None:
    one = _pattern(Route("GET", "/v1/{id}/x", "F"))
    matched = one.fullmatch("/v1/a.b/x")
    assert matched
    assert matched.groupdict() == {"id": "a.b"}
    assert not one.fullmatch("/v1/a/b/x")
    rest = _pattern(Route("GET", "/files/{path+}", "F")).fullmatch("/files/a/b")
    assert rest
    assert rest.groupdict() == {"path": "a/b"}
