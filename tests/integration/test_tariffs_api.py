"""PUT, GET and DELETE /v1/tariffs/…, and what reports say of it."""

from typing import Any

import pytest

from tests.conftest import unpooled
from tests.integration.conftest import Api

pytestmark = unpooled

FLEET, METER = "/v1/tariffs/fleet", "/v1/tariffs/meters/METER-1"
NIGHT = {"days": ["mon", "tue", "wed"], "from": "22:00", "to": "06:00", "pricePerKwh": 0.18}
TARIFF: dict[str, Any] = {
    "currency": "EUR",
    "timeZone": "Europe/Berlin",
    "pricePerKwh": 0.3,
    "kgCo2PerKwh": 0.4,
    "periods": [NIGHT],
    "validFrom": "2026-02-01T00:00:00+01:00",
}
ANSWER = TARIFF | {"validFrom": "2026-01-31T23:00:00Z", "validTo": None}
FLAT = {**TARIFF, "periods": []}
# At noon: the clock of Berlin is an hour ahead.
MINUTE = {"timestamp": "2026-02-10T11:30:00Z"}


def charge(api: Api, number: int, ac: float, dc: float, **at: str) -> None:
    meter = {"meterId": f"METER-{number}", "kwhConsumedAc": ac, "voltage": 230}
    vehicle = {"vehicleId": f"VEH-{number}", "kwhDeliveredDc": dc, "batteryTemp": 20}
    assert api.post("/ingest/meter", meter | MINUTE | at).status == 201
    assert api.post("/ingest/vehicle", vehicle | MINUTE | at).status == 201


def test_a_tariff_is_put_listed_and_deleted(api: Api) -> None:
    assert api.get(FLEET).status == 404
    first, again = api.put(FLEET, TARIFF), api.put(FLEET, TARIFF)
    assert (first.status, first.body) == (201, ANSWER)
    assert (again.status, again.body) == (200, ANSWER)
    later = {**FLAT, "validFrom": "2026-03-01T00:00:00Z", "validTo": "2026-04-01T00:00:00Z"}
    assert api.put(FLEET, later).status == 201
    assert api.get(FLEET).body == {"versions": [later, ANSWER]}
    assert api.get(METER).status == 404
    left = api.delete(FLEET + "?validFrom=2026-02-01T00:00:00%2B01:00")
    assert (left.status, left.body) == (200, {"versions": [later]})
    assert api.delete(FLEET + "?validFrom=2026-02-01T00:00:00%2B01:00").status == 404
    assert api.delete(FLEET).status == 400


def test_every_failing_field_is_named_at_once(api: Api) -> None:
    refused = api.put(
        METER,
        {
            "currency": "euro",
            "timeZone": "Berlin",
            "pricePerKwh": -1_000_001,
            "kgCo2PerKwh": "0.4",
            "periods": [{"days": ["mo"], "from": "22:10", "to": "24:15", "pricePerKwh": None}],
            "validFrom": "2026-02-01T00:07:00Z",
            "validTo": "2026-02-01",
            "valid": True,
        },
    )
    assert refused.status == 400
    assert [error["field"] for error in refused.body["errors"]] == [
        *("currency", "timeZone", "pricePerKwh", "kgCo2PerKwh"),
        *("periods.0.days.0", "periods.0.from", "periods.0.to", "periods.0.pricePerKwh"),
        *("validFrom", "validTo", "valid"),
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"validTo": TARIFF["validFrom"]}, "validTo"),
        ({"periods": [NIGHT, {**NIGHT, "days": ["tue"], "from": "05:45"}]}, "periods"),
        ({"periods": [{**NIGHT, "days": ["mon", "mon"]}]}, "periods"),
        ({"periods": [{**NIGHT, "to": "22:00"}]}, "periods.0"),
        ({"periods": [{**NIGHT, "days": []}]}, "periods.0.days"),
        ({"validFrom": "1999-12-31T23:45:00Z"}, "validFrom"),
    ],
)
def test_what_cannot_be_is_refused(api: Api, changes: dict[str, Any], field: str) -> None:
    refused = api.put(FLEET, TARIFF | changes)
    assert refused.status == 400
    assert [error["field"] for error in refused.body["errors"]] == [field]
    assert api.get(FLEET).status == 404


def test_a_name_given_twice_is_refused_wherever_it_is(api: Api) -> None:
    period = '{"days": ["mon"], "from": "00:00", "to": "24:00", "to": "12:00", "pricePerKwh": 1}'
    rest = '"timeZone": "UTC", "pricePerKwh": 1, "validFrom": "2026-01-01T00:00:00Z"'
    for body, field in (
        (f'{{"currency": "EUR", "periods": [{period}], {rest}}}', "periods.0"),
        (f'{{"currency": "EUR", "currency": "USD", {rest}}}', "currency"),
    ):
        refused = api.request("PUT", FLEET, body.encode())
        assert refused.status == 400
        assert refused.body["errors"] == [{"field": field, "message": "Field should be given once"}]


def test_all_tariffs_have_one_currency(api: Api) -> None:
    assert api.put(FLEET, TARIFF).status == 201
    refused = api.put(METER, {**TARIFF, "currency": "USD"})
    assert (refused.status, refused.body["message"]) == (
        409,
        "All tariffs should have one currency",
    )
    assert api.put(FLEET, {**TARIFF, "currency": "USD"}).status == 200  # the only one


def test_a_meter_of_no_possible_id_is_refused(api: Api) -> None:
    assert api.put("/v1/tariffs/meters/*", TARIFF).status == 400


def test_without_a_tariff_performance_is_what_it_was(api: Api) -> None:
    charge(api, 1, 5.5, 5.06)
    body = api.get("/v1/analytics/performance/VEH-1").body
    assert not {"lossCost", "lossCo2Kg", "currency"} & body.keys()
    assert body["reasons"] == {}
    [item] = api.get("/v1/analytics/fleet?end=2026-02-10T12:00:00Z").body["items"]
    assert (item["lossCost"], item["lossCo2Kg"], item["currency"]) == (None, None, None)


def test_performance_says_what_was_lost_and_why_it_does_not_know(api: Api) -> None:
    charge(api, 1, 5.5, 5.0)
    charge(api, 2, 5.5, 5.0)
    assert api.put(METER, FLAT).status == 201
    body = api.get("/v1/analytics/performance/VEH-1").body
    # 5.5 of the meter, at its price, less 5 that arrived while it fed the vehicle by its name.
    assert (body["lossCost"], body["lossCo2Kg"], body["currency"]) == (0.15, 0.2, "EUR")
    other = api.get("/v1/analytics/performance/VEH-2").body
    assert (other["lossCost"], other["currency"]) == (None, "EUR")
    assert other["reasons"] == {
        "lossCost": "no tariff says pricePerKwh for every hour in which energy was counted",
        "lossCo2Kg": "no tariff says kgCo2PerKwh for every hour in which energy was counted",
    }
    alone = {"vehicleId": "CAR-3", "kwhDeliveredDc": 1, "batteryTemp": 20}
    assert api.post("/ingest/vehicle", alone | MINUTE).status == 201
    reasons = api.get("/v1/analytics/performance/CAR-3").body["reasons"]
    assert reasons["lossCost"] == reasons["lossCo2Kg"] == reasons["lossKwh"]
    both = api.get("/v1/analytics/performance?vehicleIds=VEH-1,VEH-2").body["vehicles"]
    assert [vehicle["lossCost"] for vehicle in both] == [0.15, None]


def test_more_dc_than_ac_costs_less_than_nothing(api: Api) -> None:
    charge(api, 1, 5.0, 5.5)
    assert api.put(FLEET, FLAT).status == 201
    body = api.get("/v1/analytics/performance/VEH-1").body
    assert (body["lossKwh"], body["lossCost"], body["status"]) == (-0.5, -0.15, "insufficient")


def test_the_fleet_is_ranked_by_cost_where_it_has_a_tariff(api: Api) -> None:
    charge(api, 1, 5.0, 4.0, timestamp="2026-02-10T11:30:00Z")  # 0.30 a kWh
    charge(api, 2, 5.0, 3.5, timestamp="2026-02-10T03:30:00Z")  # 0.18
    fleet = "/v1/analytics/fleet?end=2026-02-10T12:00:00Z"
    assert api.put(FLEET, {**FLAT, "validFrom": "2026-02-10T12:00:00Z"}).status == 201
    assert api.get(fleet).body["sort"] == "energy"  # it begins with the window's end
    assert api.put(FLEET, TARIFF).status == 201
    ranked = api.get(fleet).body
    assert ranked["sort"] == "cost"
    assert [(each["vehicleId"], each["lossCost"]) for each in ranked["items"]] == [
        ("VEH-1", 0.3),
        ("VEH-2", 0.27),
    ]
    totals = ranked["totals"]
    assert (totals["lossCost"], totals["lossCo2Kg"], totals["currency"]) == (0.57, 1.0, "EUR")
    by_energy = api.get(fleet + "&sort=energy&limit=1").body
    assert [each["vehicleId"] for each in by_energy["items"]] == ["VEH-2"]
    rest = api.get(f"{fleet}&limit=1&cursor={by_energy['nextCursor']}").body
    assert (rest["sort"], [each["vehicleId"] for each in rest["items"]]) == ("energy", ["VEH-1"])
    table = api.get(fleet, "text/csv").body.splitlines()
    assert table[0].startswith("vehicleId,status,lossKwh,lossCost,lossCo2Kg,currency,")
    assert table[1].split(",")[2:6] == ["1.0", "0.3", "0.4", "EUR"]
    assert api.get(fleet + "&sort=price").status == 400


def test_a_trend_has_the_price_of_each_hour(api: Api) -> None:
    assert api.put(FLEET, TARIFF).status == 201
    for time in ("04:30", "05:30"):  # the night ends at six in Berlin, five in UTC
        charge(api, 1, 5.0, 4.0, timestamp=f"2026-02-11T{time}:00Z")
    trend = "/v1/analytics/vehicles/VEH-1/trend?buckets=2"
    items = api.get(trend).body["items"]
    assert [(item["lossCost"], item["currency"]) for item in items] == [(0.18, "EUR"), (0.3, "EUR")]
    assert "lossCost,lossCo2Kg,currency" in api.get(trend, "text/csv").body.splitlines()[0]


def test_a_later_version_leaves_what_was_before(api: Api) -> None:
    assert api.put(FLEET, FLAT).status == 201
    charge(api, 1, 5.0, 4.0)
    dearer = {**FLAT, "pricePerKwh": 0.9, "validFrom": "2026-02-10T12:00:00Z"}
    assert api.put(FLEET, dearer).status == 201
    assert api.get("/v1/analytics/performance/VEH-1").body["lossCost"] == 0.3
    charge(api, 1, 5.0, 4.0, timestamp="2026-02-10T12:30:00Z")
    assert api.get("/v1/analytics/performance/VEH-1").body["lossCost"] == 1.2
