"""Time zones of the IANA database, by name."""

from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from pydantic_core import PydanticCustomError


def parse_zone(value: str) -> ZoneInfo:
    """Read the name of a time zone; raise PydanticCustomError where IANA knows none such.

    ZoneInfo alone would open whatever file of the system's folder is named: also the zones of
    `right/`, which count leap seconds.
    """
    if value not in _zone_names():
        raise PydanticCustomError(
            "zone", "Input should be the name of an IANA time zone, such as Asia/Kolkata"
        )
    return ZoneInfo(value)


@cache
def _zone_names() -> frozenset[str]:
    # What the package tzdata has, from which ZoneInfo reads where the system has no zones, as on
    # AWS Lambda.
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())
