"""What the environment tells an entry point."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from telemetry.credentials import Password, read_secret, sign_token
from telemetry.errors import SettingInvalid, SettingMissing
from telemetry.signatures import AccessKey, regional_url

MOST_FAULT_HOURS = 744


class Settings:
    """Environment variables, each read by the entry points that need it, as they are loaded.

    Every property raises SettingMissing where its variable is not set and has no default.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @property
    def database_url(self) -> str:
        """`DATABASE_URL`: libpq connection URI of PostgreSQL or of the proxy before it."""
        return self._read("DATABASE_URL")

    @property
    def replica_database_url(self) -> str | None:
        """`REPLICA_DATABASE_URL`: a read replica for reports; None where there is none."""
        return self._environ.get("REPLICA_DATABASE_URL") or None

    @property
    def database_password(self) -> Password | None:
        """`DATABASE_PASSWORD_FROM`: `url` (the default) where the password is in the URL: None.

        `iam` signs a token for each connection with the credentials that the function runs with.
        Raises SettingInvalid on any other value.
        """
        source = self._environ.get("DATABASE_PASSWORD_FROM", "url")
        if source == "url":
            return None
        if source != "iam":
            raise SettingInvalid("DATABASE_PASSWORD_FROM", source, "url or iam")
        key = self.access_key
        return lambda url: sign_token(url, key, datetime.now(UTC))

    @property
    def owner_password(self) -> Password | None:
        """`OWNER_SECRET`: the ARN of the secret with the password of a new database's owner.

        None where there is none: the database is another's.
        """
        arn = self._environ.get("OWNER_SECRET")
        return (lambda _url: read_secret(arn)) if arn else None

    @property
    def access_key(self) -> AccessKey:
        """`AWS_ACCESS_KEY_ID` and its kin: what the function runs with."""
        try:
            return AccessKey.from_environment(self._environ)
        except KeyError as error:
            raise SettingMissing(error.args[0]) from None

    @property
    def queue_url(self) -> str:
        """`QUEUE_URL`: the SQS queue of the function's stream."""
        return self._read("QUEUE_URL")

    @property
    def backfill_queue_url(self) -> str:
        """`BACKFILL_QUEUE_URL`: the SQS queue of the stream's backfills."""
        return self._read("BACKFILL_QUEUE_URL")

    @property
    def dead_letter_queue_url(self) -> str:
        """`DEAD_LETTER_QUEUE_URL`: where messages go that can never be stored."""
        return self._read("DEAD_LETTER_QUEUE_URL")

    @property
    def archive_bucket(self) -> str:
        """`ARCHIVE_BUCKET`: the bucket of S3 for what is past retention."""
        return self._read("ARCHIVE_BUCKET")

    @property
    def history_retention(self) -> timedelta:
        """`HISTORY_RETENTION`: for how many days readings stay in history, by device time.

        Raises SettingInvalid where it is no whole number of days above 0.
        """
        value = self._read("HISTORY_RETENTION")
        # No more than there are days since year 1.
        if not re.fullmatch(r"0*[1-9]\d{0,4}", value, re.ASCII):
            raise SettingInvalid("HISTORY_RETENTION", value, "a whole number of days above 0")
        return timedelta(days=int(value))

    @property
    def stack_name(self) -> str:
        """`STACK_NAME`: the dimension of this system's own metrics."""
        return self._read("STACK_NAME")

    @property
    def queue_first(self) -> bool:
        """`INGEST_MODE`: `queue` sends every reading through the queue, `database` does not.

        Raises SettingInvalid on any other value.
        """
        return self._read_choice("INGEST_MODE", "database", "queue") == "queue"

    @property
    def by_token(self) -> bool:
        """`AUTH`: `token` answers only requests that the authorizer let through, `none` all.

        Raises SettingInvalid on any other value.
        """
        return self._read_choice("AUTH", "token", "none") == "token"

    @property
    def device_rate(self) -> float:
        """`DEVICE_RATE`: readings a minute that an environment takes from a device; 0: any number.

        Raises SettingInvalid where it is no number from 0 on.
        """
        return self._read_number("DEVICE_RATE", math.inf)

    @property
    def device_burst(self) -> float:
        """`DEVICE_BURST`: readings that it takes at once from a device that rested; 1 or more."""
        return max(1, self._read_number("DEVICE_BURST", math.inf))

    @property
    def token_keys(self) -> str:
        """`TOKEN_KEYS`: the public keys that tokens may be signed with, as read_keys reads them."""
        return self._read("TOKEN_KEYS")

    @property
    def revocations_table(self) -> str:
        """`REVOCATIONS_TABLE`: the DynamoDB table with the ids of revoked tokens."""
        return self._read("REVOCATIONS_TABLE")

    @property
    def dynamodb_url(self) -> str:
        """`AWS_ENDPOINT_URL_DYNAMODB`, else `AWS_ENDPOINT_URL`: where DynamoDB is.

        As AWS' own clients read them. Without either, it is the one of the region.
        """
        names = ("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL")
        given = next(filter(None, map(self._environ.get, names)), None)
        return given or regional_url("dynamodb", self.access_key.region)

    @property
    def pairs_by_name(self) -> bool:
        """`PAIRING`: `suffix` pairs a vehicle that was never linked with the meter of its suffix.

        `links` does not. Raises SettingInvalid on any other value.
        """
        return self._read_choice("PAIRING", "links", "suffix") == "suffix"

    @property
    def least_kwh(self) -> float:
        """`LEAST_KWH`: energy at the meter (kWh) below which charging is not judged.

        Raises SettingInvalid where it is no number from 0 on.
        """
        return self._read_number("LEAST_KWH", math.inf)

    @property
    def least_coverage(self) -> float:
        """`LEAST_COVERAGE`: part of the minutes heard from (0 to 1), used as least_kwh is."""
        return self._read_number("LEAST_COVERAGE", 1)

    @property
    def alert_target(self) -> str:
        """`ALERT_TARGET`: ARN of the SNS topic or EventBridge bus that faults are published to."""
        return self._read("ALERT_TARGET")

    @property
    def fault_window(self) -> timedelta:
        """`FAULT_WINDOW_HOURS`: how far back a charger is judged, 1 to 744 hours.

        Raises SettingInvalid on any other value.
        """
        value = self._read("FAULT_WINDOW_HOURS")
        if not re.fullmatch(r"\d{1,3}", value, re.ASCII) or not 1 <= int(value) <= MOST_FAULT_HOURS:
            raise SettingInvalid("FAULT_WINDOW_HOURS", value, f"1 to {MOST_FAULT_HOURS}")
        return timedelta(hours=int(value))

    @property
    def low_voltage(self) -> float:
        """`LOW_VOLTAGE`: the average (V) below which voltage is a hint; read as least_kwh is."""
        return self._read_number("LOW_VOLTAGE", math.inf)

    @property
    def high_battery_temp(self) -> float:
        """`HIGH_BATTERY_TEMP`: the average (°C) above which it is; read as least_kwh is."""
        return self._read_number("HIGH_BATTERY_TEMP", math.inf)

    def _read_number(self, name: str, most: float) -> float:
        value = self._read(name)
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII) or float(value) > most:
            raise SettingInvalid(name, value, f"a number from 0 to {most:g}")
        return float(value)

    @property
    def online_for(self) -> timedelta:
        """`ONLINE_SECONDS`: up to this age of its newest reading a device is online.

        Raises SettingInvalid where it is no whole number of seconds above 0.
        """
        return self._read_seconds("ONLINE_SECONDS")

    @property
    def stale_for(self) -> timedelta:
        """`STALE_SECONDS`: up to this age it is stale, beyond it offline; read as online_for."""
        return self._read_seconds("STALE_SECONDS")

    def _read_seconds(self, name: str) -> timedelta:
        value = self._read(name)
        # No more digits than a timedelta takes.
        if not re.fullmatch(r"0*[1-9]\d{0,8}", value, re.ASCII):
            raise SettingInvalid(name, value, "a whole number of seconds above 0")
        return timedelta(seconds=int(value))

    def _read_choice(self, name: str, *choices: str) -> str:
        value = self._read(name)
        if value not in choices:
            raise SettingInvalid(name, value, " or ".join(choices))
        return value

    def _read(self, name: str) -> str:
        try:
            return self._environ[name]
        except KeyError:
            raise SettingMissing(name) from None
