"""What energy costs and how much CO2 it stands for: tariffs of the fleet and of meters.

How they price the energy lost, tariffs.sql says and does.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from telemetry.answers import Answer
from telemetry.database import Database
from telemetry.errors import FieldError, InvalidRequest, TariffNotFound, TariffRefused
from telemetry.recognition import (
    FIRST_TIME_TOO_FAR,
    OLDEST_TIMESTAMP,
    Message,
    parse_reading,
    parse_time,
)
from telemetry.repetition import Repetition, read_json
from telemetry.zones import RELEASE, parse_zone, utc_offsets

FLEET = "*"  # where the id of a meter stands otherwise, none of which is this
MOST_VERSIONS = 100
MOST_PERIODS = 100
QUARTER = timedelta(minutes=15)
DAY_QUARTERS = timedelta(days=1) // QUARTER
WEEK_QUARTERS = 7 * DAY_QUARTERS

_PUT = "SELECT * FROM put_tariff(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
_DELETE = "SELECT delete_tariff(%s, %s)"
_LIST = "SELECT * FROM list_tariff(%s)"

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Sequence[Day] = get_args(Day)
# Of a currency's unit, or of a kg: less is nothing.
LEAST_RATE = 1e-9


def _settle_rate(rate: float) -> float:
    return rate if abs(rate) >= LEAST_RATE else 0.0


# Below 0 where who takes energy is paid for it, as on markets at times.
Price = Annotated[float, Field(ge=-1_000_000, le=1_000_000), AfterValidator(_settle_rate)]
Co2 = Annotated[float, Field(ge=0, le=100), AfterValidator(_settle_rate)]


def _quarter_instant(value: object) -> datetime:
    time = parse_time(value)
    if not OLDEST_TIMESTAMP <= time < FIRST_TIME_TOO_FAR:
        raise PydanticCustomError("instant", "Input should be in the years 2000 to 2099")
    if (time - OLDEST_TIMESTAMP) % QUARTER:
        raise PydanticCustomError("quarter", "Input should be at a quarter of an hour")
    return time


def _check_zone(name: str) -> str:
    parse_zone(name)
    return name


QuarterInstant = Annotated[datetime, BeforeValidator(_quarter_instant)]


class Period(Message):
    """Hours of the week with a price of their own, by the clock of the tariff's time zone."""

    days: Annotated[
        list[Day],
        Field(
            min_length=1, max_length=7, description="On which it begins", examples=[["mon", "tue"]]
        ),
    ]
    begins: str = Field(
        alias="from",
        pattern=r"^([01]\d|2[0-3]):(00|15|30|45)$",
        description="When, at a quarter of an hour",
        examples=["22:00"],
    )
    ends: str = Field(
        alias="to",
        pattern=r"^(([01]\d|2[0-3]):(00|15|30|45)|24:00)$",
        description="When it ends, on the next day where that is earlier than `from`",
        examples=["06:00"],
    )
    price_per_kwh: Price = Field(description="In the tariff's currency", examples=[0.18])

    @model_validator(mode="after")
    def _check_length(self) -> "Period":
        if self.begins == self.ends:
            raise PydanticCustomError(
                "period", "`from` and `to` should differ: a whole day is 00:00 to 24:00"
            )
        return self

    @property
    def quarters(self) -> list[int]:
        """The quarters of an hour it holds in, counted from Monday 00:00."""
        begins, ends = (
            int(text[:2]) * 4 + int(text[3:]) // 15 for text in (self.begins, self.ends)
        )
        length = ends - begins if begins < ends else ends - begins + DAY_QUARTERS
        return [
            (DAYS.index(day) * DAY_QUARTERS + begins + number) % WEEK_QUARTERS
            for day in self.days
            for number in range(length)
        ]


def _check_overlap(periods: list[Period]) -> list[Period]:
    quarters = [quarter for period in periods for quarter in period.quarters]
    if len(set(quarters)) < len(quarters):
        raise PydanticCustomError("overlap", "Periods should not overlap")
    return periods


class Tariff(Message):
    """A version of a tariff: it holds from validFrom until the next one's, or until validTo."""

    currency: str = Field(
        pattern=r"^[A-Z]{3}$",
        description="ISO 4217; the same for all tariffs",
        examples=["EUR"],
    )
    time_zone: Annotated[str, AfterValidator(_check_zone)] = Field(
        description="IANA time zone by whose clock the periods are", examples=["Europe/Berlin"]
    )
    price_per_kwh: Price = Field(description="Outside of the periods", examples=[0.3])
    kg_co2_per_kwh: Co2 | None = Field(
        default=None,
        description="CO2 that a kWh stands for (kg); left out in a meter's tariff, the fleet's",
        examples=[0.38],
        json_schema_extra={"unit": "kg/kWh"},
    )
    periods: Annotated[list[Period], AfterValidator(_check_overlap)] = Field(
        default=[], max_length=MOST_PERIODS, description="No two overlap", examples=[[]]
    )
    valid_from: QuarterInstant = Field(
        description="From when on (RFC 3339, offset required), at a quarter of an hour in the "
        "years 2000 to 2099; energy after it is priced by this version",
        examples=["2026-01-01T00:00:00+01:00"],
    )
    valid_to: QuarterInstant | None = Field(
        default=None,
        description="Up to when, likewise; left out, until the next version",
        examples=[None],
    )

    TEXTS = None  # their number depends on the periods

    @field_validator("valid_to")
    @classmethod
    def _check_order(cls, valid_to: datetime | None, others: ValidationInfo) -> datetime | None:
        valid_from = others.data.get("valid_from")
        if valid_from and valid_to and valid_to <= valid_from:
            raise PydanticCustomError("order", "Input should be after validFrom")
        return valid_to

    @property
    def week(self) -> list[tuple[timedelta, Decimal]]:
        """A local week from Monday 00:00 on: where a price begins that holds until the next."""
        prices = [self.price_per_kwh] * WEEK_QUARTERS
        for period in self.periods:
            for quarter in period.quarters:
                prices[quarter] = period.price_per_kwh
        return [
            (number * QUARTER, Decimal(str(price)))
            for number, price in enumerate(prices)
            if number == 0 or price != prices[number - 1]
        ]


class Tariffs(Answer):
    """The versions of a tariff, the newest first."""

    versions: list[Tariff] = Field(examples=[[]])


Kind = TypeVar("Kind", bound=Message)


def parse_tariff(kind: type[Kind], body: str | bytes) -> Kind:
    """Recognise a tariff in a JSON body. Raises InvalidRequest and BodyTooLarge."""
    tariff = parse_reading(kind, body)
    repeated = [
        FieldError(f"periods.{number}", "Field should be given once")
        for number, period in enumerate(read_json(body).get("periods", []))
        if isinstance(period, Repetition)
    ]
    if repeated:
        raise InvalidRequest(repeated)
    return tariff


def put_tariff(database: Database, tariff_id: str, tariff: Tariff) -> bool:
    """Keep a version of the tariff of a meter or of FLEET; one of the same validFrom is replaced.

    Return whether it is new. Raises TariffRefused where tariffs have another currency or there are
    too many versions, and DatabaseUnavailable.
    """
    starts, prices = zip(*tariff.week, strict=True)
    zone_starts, offsets = zip(*utc_offsets(tariff.time_zone), strict=True)
    co2 = tariff.kg_co2_per_kwh
    [(refused, created)] = database.fetch(
        _PUT,
        (
            *(tariff_id, tariff.valid_from, tariff.valid_to, tariff.currency, tariff.time_zone),
            *(Decimal(str(tariff.price_per_kwh)), None if co2 is None else Decimal(str(co2))),
            json.dumps([period.model_dump(by_alias=True) for period in tariff.periods]),
            *(list(starts), list(prices), MOST_VERSIONS),
            *(RELEASE, list(zone_starts), list(offsets)),
        ),
    )
    if refused:
        raise TariffRefused(
            "All tariffs should have one currency"
            if refused == "currency"
            else f"A tariff should have at most {MOST_VERSIONS} versions"
        )
    return bool(created)


def delete_tariff(database: Database, tariff_id: str, valid_from: datetime) -> Tariffs:
    """Take a version away, so that the one before it holds again; return what is left.

    Raises TariffNotFound where there is none, and DatabaseUnavailable.
    """
    if not database.fetch(_DELETE, (tariff_id, valid_from))[0][0]:
        raise TariffNotFound
    return _list(database, tariff_id)


def list_tariff(database: Database, tariff_id: str) -> Tariffs:
    """Return the versions of a tariff. Raises TariffNotFound and DatabaseUnavailable."""
    found = _list(database, tariff_id)
    if not found.versions:
        raise TariffNotFound
    return found


def _list(database: Database, tariff_id: str) -> Tariffs:
    return Tariffs(versions=[_tariff(*row) for row in database.fetch(_LIST, (tariff_id,))])


def _tariff(valid_from: datetime, valid_to: datetime | None, *others: Any) -> Tariff:
    currency, time_zone, price, co2, periods = others
    return Tariff.model_construct(
        currency=currency,
        time_zone=time_zone,
        price_per_kwh=price,
        kg_co2_per_kwh=co2,
        periods=[Period.model_validate(period) for period in periods],
        valid_from=valid_from.astimezone(UTC),
        valid_to=valid_to and valid_to.astimezone(UTC),
    )
