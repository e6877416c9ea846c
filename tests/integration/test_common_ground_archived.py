"""What was compared of a day stays known when its history has gone to the archive."""

from contextlib import closing
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from telemetry.archive import Archive
from telemetry.charging import Performance
from telemetry.database import Database, connect
from telemetry.late import LateReceipts
from telemetry.maintenance import Maintenance
from telemetry.readings import VehicleReading
from telemetry.reports import report_performance
from telemetry.store import store_vehicle_reading
from telemetry.verification import find_differences
from tests.conftest import Server, template_at, unpooled
from tests.integration.test_archive import make_fresh
from tests.integration.test_common_ground import END, RULES, START, Charger, Side

pytestmark = unpooled

HOUR = timedelta(hours=1)
FIELDS = (
    *("compared_kwh_ac", "compared_kwh_dc", "ac_unmatched", "dc_unmatched", "compared_minutes"),
    *("efficiency_ratio", "loss_kwh", "status"),
)


def always() -> bool:
    return True


def test_archived_hours_are_compared_as_they_were(server: Server, s3: Any) -> None:
    with make_fresh(server, template_at(server, START - 24 * HOUR), s3) as fresh:
        urls, bucket = fresh()
        with (
            closing(Database(urls.ingest)) as store,
            closing(Database(urls.read)) as reader,
            connect(urls.maintain) as connection,
        ):
            lossy = Side(loss=0.05, offset=20)
            charger = Charger([(14, 20)], efficiency=0.75, vehicle=lossy, meter=Side(loss=0.05))
            charger.send(store, Random(1))

            def ask() -> Performance:
                return report_performance(reader, "VEH-1", RULES, END)

            before = ask()
            assert before.status == "fault"
            assert (before.ac_unmatched or 0) > 1
            archive = Archive(connection, bucket)
            midnight = START + 24 * HOUR
            maintenance = Maintenance(connection, archive, END, midnight, rules=RULES, go=always)
            assert maintenance.archive_history().details["closed"] > 0
            assert "archived" in ask().reasons["timeWindowStart"]
            assert [getattr(ask(), name) for name in FIELDS] == [
                getattr(before, name) for name in FIELDS
            ]

            # A minute that was lost comes late: what is common in its hour is not known any more.
            heard = ask().compared_kwh_ac or 0
            minute = next(
                minute
                for minute in range(15 * 60, 16 * 60)
                if not _was_heard(connection, START + timedelta(minutes=minute, seconds=20))
            )
            late = VehicleReading.model_construct(
                vehicle_id="VEH-1",
                kwh_delivered_dc=0.0875,
                battery_temp=20.0,
                soc=None,
                meter_id=None,
                timestamp=START + timedelta(minutes=minute, seconds=20),
            )
            store_vehicle_reading(store, late, END)
            LateReceipts(connection, archive).settle(always)
            found = ask()
            assert (found.compared_kwh_ac or 0) == pytest.approx(heard - 6.3, abs=0.8)
            assert found.status == "fault"
            assert found.total_energy_consumed_ac == pytest.approx(
                (found.compared_kwh_ac or 0) + (found.ac_unmatched or 0), abs=0.002
            )
            assert find_differences(connection) == []


def _was_heard(connection: Any, at: Any) -> bool:
    [(heard,)] = connection.execute(
        """SELECT minutes & minute_bit(%(at)s, hour) != 0 FROM vehicle_hourly_rollup
           WHERE vehicle_id = 'VEH-1' AND hour = rollup_hour(%(at)s)""",
        {"at": at},
    )
    return bool(heard)
