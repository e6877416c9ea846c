"""What an entry point loads as it starts: a cold start pays for each module."""

import json
import os
import subprocess
import sys

import pytest

from local.configuration import read_local_template

FUNCTIONS = read_local_template({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}).functions
# Powertools looks whether there is a botocore, which by itself is one small module.
COSTLY = {
    "boto3",
    "botocore.session",
    "botocore.client",
    "botocore.auth",
    "aws_xray_sdk",
    "aws_lambda_powertools.event_handler.openapi.swagger_ui",
    "pydantic.v1",
}
OPENAPI = {
    "aws_lambda_powertools.event_handler.openapi.models",
    "aws_lambda_powertools.event_handler.openapi.params",
    "aws_lambda_powertools.event_handler.middlewares.openapi_validation",
}
OF_AUTHORIZER = {"jwt", "cryptography", "urllib3", "telemetry.tokens", "telemetry.revocations"}
# The authorizer knows nothing of readings, and asks no database.
NOT_OF_AUTHORIZER = {
    *("psycopg", "telemetry.database", "telemetry.readings", "telemetry.answers", "telemetry.http")
}
# Modules that are one function's, or a few functions', with models that take time to build.
READINGS = {"readings", "store", "messages"}
INGESTS = {*READINGS, "admission", "ingestion", "outcomes"}
WORKS = {*READINGS, "worker"}
REPORTS = {"charging", "fleet", "live", "receipts", "reports", "trends", "analytics_parameters"}
OF_SOME = {
    *INGESTS,
    *WORKS,
    *REPORTS,
    *("acknowledgements", "corrections", "devices", "erasures", "faults", "links"),
    *("pages", "parameters", "tables", "tariffs", "voids"),
}
LOADS: dict[str, set[str]] = {
    "IngestMeterFunction": INGESTS,
    "IngestVehicleFunction": INGESTS,
    "MeterWorkerFunction": WORKS,
    "VehicleWorkerFunction": WORKS,
    "MeterBackfillFunction": WORKS,
    "VehicleBackfillFunction": WORKS,
    "LinksFunction": {"links"},
    "DevicesFunction": {"devices", "pages", "parameters"},
    "TariffsFunction": {"tariffs"},
    "AnalyticsFunction": {*REPORTS, "faults", "pages", "parameters", "tables"},
    "AuthorizerFunction": set(),
    "FaultMonitorFunction": {"faults", "pages"},
    "AcknowledgeFunction": {"acknowledgements"},
    "CorrectionsFunction": {"corrections", "erasures", "voids", "pages", "parameters"},
    "MigrateFunction": set(),
    "MaintainFunction": set(),
}
CODE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("entry_point", {file!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
print(json.dumps(list(sys.modules)))
"""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_entry_point_loads_no_more_than_it_needs(name: str) -> None:
    function = FUNCTIONS[name]
    on_aws = {
        "DATABASE_PASSWORD_FROM": "iam",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(file=str(function.file))],
        env={
            **os.environ,
            **function.environment,
            **on_aws,
            "PYTHONPATH": "layers/telemetry/python",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(done.stdout))
    # Not on the way of readings.
    with_openapi = name in {
        *("AnalyticsFunction", "LinksFunction", "AcknowledgeFunction", "CorrectionsFunction"),
        *("DevicesFunction", "TariffsFunction"),
    }
    forbidden = COSTLY if with_openapi else COSTLY | OPENAPI
    forbidden = forbidden | (NOT_OF_AUTHORIZER if name == "AuthorizerFunction" else OF_AUTHORIZER)
    assert loaded & forbidden == set()
    assert "telemetry.settings" in loaded
    assert {module for module in OF_SOME if f"telemetry.{module}" in loaded} == LOADS[name]
