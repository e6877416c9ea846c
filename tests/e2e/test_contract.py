"""Both contracts over HTTP: served by `make run`, and by the genuine `sam local start-api`."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from local import ROOT
from local.folder import write_file
from local.sam import ENVIRONMENT, host_architecture, remove_containers
from telemetry import __version__
from tests.e2e.conftest import Api, LocalSystem, request_until

METER_A = {"meterId": "MTR_001", "kwhConsumedAc": 5.5, "voltage": 220}
VEHICLE_A = {"vehicleId": "VEH_001", "kwhDeliveredDc": 4.62, "batteryTemp": 32}
METER_B = {"meterId": "METER-001", "kwhConsumedAc": 45.23, "voltage": 240.5}
VEHICLE_B = {"vehicleId": "VEH-001", "soc": 85, "kwhDeliveredDc": 32.15, "batteryTemp": 28.3}
NOON = {"timestamp": "2026-02-10T12:00:00Z"}
SERVICE = {"service": "Energy Ingestion Engine", "status": "running", "version": __version__}


def said(what: str) -> dict[str, object]:
    return {"success": True, "message": f"{what} data ingested successfully"}


REPORT_A = {"acEnergyConsumed": 5.5, "dcEnergyDelivered": 4.62, "efficiency": 0.84}
REPORT_B = {"totalEnergyConsumedAc": 45.23, "totalEnergyDeliveredDc": 32.15, "dataPoints": 1}
WRONG = {"statusCode": 400, "path": "/ingest/meter", "message": "Validation failed"}
UNKNOWN = {"statusCode": 404, "message": "Vehicle not found"}
IMAGE = f"public.ecr.aws/lambda/python:3.13-{host_architecture()}"
# Past its retention.
LONG_AGO = {"timestamp": "2020-02-10T12:00:00Z"}
# method, path, body, status, some of the answer; in this order
CONTRACTS: list[tuple[str, str, object, int, dict[str, Any]]] = [
    ("GET", "/", None, 200, SERVICE),
    ("POST", "/ingest/meter", METER_A | NOON, 201, said("Meter MTR_001")),
    ("POST", "/ingest/vehicle", VEHICLE_A | NOON, 201, said("Vehicle VEH_001")),
    ("GET", "/v1/analytics/performance/VEH_001", None, 200, REPORT_A),
    ("POST", "/v1/ingestion/meter", METER_B | NOON, 201, said("Meter METER-001")),
    ("POST", "/v1/ingestion/vehicle", VEHICLE_B | NOON, 201, said("Vehicle VEH-001")),
    ("GET", "/v1/analytics/performance/VEH-001", None, 200, REPORT_B),
    ("POST", "/v1/ingestion/meter/batch", [METER_B | NOON], 201, {"duplicate": 1}),
    ("POST", "/v1/ingestion/vehicle/batch", [VEHICLE_B | NOON, {}], 207, {"rejected": 1}),
    ("POST", "/ingest/meter", METER_A, 400, WRONG),
    ("GET", "/v1/analytics/performance/UNKNOWN", None, 404, UNKNOWN),
    ("GET", "/health", None, 200, {"status": "ok"}),
]


def test_make_run_serves_both_contracts(system: LocalSystem) -> None:
    system.start()
    check_contracts(system)


def test_sam_local_start_api_serves_both_contracts(system: LocalSystem) -> None:
    if reason := missing_for_sam():
        pytest.skip(reason)
    before = containers()
    system.start("--sam", BYTECODE="optional")
    check_contracts(system)
    # Those that no request reaches take their events from within a container.
    returned = {
        name: invoke_in_container(
            system, name, (ROOT / f"events/{name}.json").read_text(encoding="utf-8")
        )
        for name in ("VehicleWorkerFunction", "FaultMonitorFunction", "MigrateFunction")
    }
    assert returned["VehicleWorkerFunction"] == {"batchItemFailures": []}
    assert returned["MigrateFunction"]["migrations"] == []
    assert returned["FaultMonitorFunction"]["published"] == 0
    # From within a container, history goes to the archive, and comes back.
    assert request_until(201, system.request, "POST", "/ingest/meter", METER_A | LONG_AGO)[0] == 201
    invoke_in_container(system, "MaintainFunction", "{}")
    restored = invoke_in_container(system, "MaintainFunction", '{"restore": "2020-02-10"}')
    assert sum(restored.values()) > 0
    # A reading goes to the queue from within a container.
    assert system.command("db-stop").returncode == 0
    status, answer = system.request("POST", "/ingest/meter", METER_A | {"timestamp": "2026-02-10Z"})
    assert status == 400
    later = METER_A | {"timestamp": "2026-02-10T13:00:00Z"}
    status, answer = request_until(202, system.request, "POST", "/ingest/meter", later)
    assert (status, answer["status"]) == (202, "queued")
    meter = (ROOT / "events/IngestMeterFunction.json").read_text(encoding="utf-8")
    assert invoke_in_container(system, "IngestMeterFunction", meter)["statusCode"] == 202
    assert system.command("stop").returncode == 0
    assert containers() == before  # also those that SAM forgets


def test_containers_of_a_killed_system_are_removed_and_no_others(tmp_path: Path) -> None:
    if reason := missing_for_sam():
        pytest.skip(reason)
    write_file(tmp_path, ENVIRONMENT, json.dumps({"OneFunction": {"DATABASE_URL": str(tmp_path)}}))
    command = ["docker", "create", "--label", "sam.cli.container.type=lambda"]
    ours, other = (
        subprocess.run(
            [*command, "--env", f"DATABASE_URL={url}", IMAGE, "handler"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for url in (tmp_path, "another")
    )
    try:
        remove_containers(tmp_path)
        remove_containers(tmp_path)  # nothing is left to do
        assert (ours[:12] in containers(), other[:12] in containers()) == (False, True)
    finally:
        subprocess.run(["docker", "rm", "--force", other.strip()], check=True, capture_output=True)


def check_contracts(system: Api) -> None:
    for method, path, body, status, part in CONTRACTS:
        answered, answer = request_until(status, system.request, method, path, body)
        assert (answered, {name: answer.get(name) for name in part}) == (status, part), path


def invoke_in_container(system: LocalSystem, function: str, event: str) -> dict[str, Any]:
    file = system.folder.with_name("event.json")
    file.write_text(event, encoding="utf-8")
    done = system.command("invoke", "--sam", function, str(file))
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def missing_for_sam() -> str | None:
    """Return what `sam local` needs and this machine has not."""
    if not shutil.which("docker") or not (ROOT / ".venv-sam/bin/sam").exists():
        return "no Docker, or no SAM CLI (`make .venv/sam`)"
    found = subprocess.run(
        ["docker", "image", "inspect", IMAGE], capture_output=True, text=True, check=False
    )
    if found.returncode:
        return f"{found.stderr.strip()} (local/base_image.sh makes a stand-in)"
    return None


def containers() -> str:
    return subprocess.run(
        ["docker", "ps", "--all", "--quiet"], capture_output=True, text=True, check=True
    ).stdout
