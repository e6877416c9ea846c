"""events/: one for each function, as `sam local invoke` sends it."""

import json
import sys
from typing import Any

import pytest

from local import ROOT
from local.configuration import read_local_template
from local.databases import DatabaseUrls
from local.runtime import Environment
from tests.conftest import unpooled

EVENTS = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))
    for file in (ROOT / "events").glob("*.json")
}


@unpooled
def test_each_function_takes_its_event(urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEFAULT_REGION", "REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "none")
    functions = dict(read_local_template({**urls.environment, "AUTH": "token"}).functions)
    assert set(EVENTS) == set(functions)
    del functions["MaintainFunction"]  # needs a bucket: tests/integration/test_maintenance.py
    answers: dict[str, Any] = {}
    # What analytics reports, another one has to write first.
    for name in sorted(functions, key=lambda name: name == "AnalyticsFunction"):
        function = functions[name]
        answers[name] = Environment(function).invoke(EVENTS[name], "request")
        environment = sys.modules.pop(f"{function.file.parent.name}_{function.file.stem}")
        if name not in {"AuthorizerFunction", "FaultMonitorFunction", "MigrateFunction"}:
            environment.database.close()
    statuses = {
        name: answer["statusCode"] for name, answer in answers.items() if "statusCode" in answer
    }
    assert statuses == {
        "IngestMeterFunction": 201,
        "IngestVehicleFunction": 201,
        "AnalyticsFunction": 200,
        "DevicesFunction": 201,
        "LinksFunction": 201,
        "TariffsFunction": 201,
        "AcknowledgeFunction": 404,
        "CorrectionsFunction": 404,
    }
    for stream in ("Meter", "Vehicle"):
        for worker in ("Worker", "Backfill"):
            assert answers[f"{stream}{worker}Function"] == {"batchItemFailures": []}
    assert answers["FaultMonitorFunction"]["published"] == 0
    assert answers["AuthorizerFunction"] == {"isAuthorized": False}
    assert answers["MigrateFunction"]["migrations"] == []
