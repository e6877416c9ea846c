"""What came of a simulation, as a person reads it: a table of streams and one of vehicles."""

import math
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local.simulator.efficiency import (
    FAULT_BELOW,
    Assumption,
    Performance,
    contradiction,
    has_other_readings,
)
from local.simulator.sender import DeviceCount, Tally

AGREE_KWH = 1e-6
MOST_MESSAGES = 5


def report_streams(
    tally: Tally, sums: Mapping[str, float], seconds: float, console: Console
) -> list[str]:
    """Print what became of the readings of each stream; return what is wrong.

    `sums` has the energy (kWh) that each stream should have, where a file says so.
    """
    counts: dict[str, list[DeviceCount]] = {}
    for count in tally.devices.values():
        counts.setdefault(count.stream, []).append(count)
    table = _table()
    table.add_column("stream")
    for name in ("sent", "accepted", "refused", "failed", "kWh accepted"):
        table.add_column(name, justify="right")
    if sums:
        table.add_column("kWh in file", justify="right")
        table.add_column("agree")
    faults = []
    for stream in sorted({*counts, *sums}):
        devices = counts.get(stream, [])
        accepted = sum(count.accepted for count in devices)
        refused = sum(count.refused for count in devices)
        failed = sum(count.failed for count in devices)
        kwh = math.fsum(count.kwh for count in devices)
        counted = (accepted + refused + failed, accepted, refused, failed)
        row = [stream, *(f"{n:,}" for n in counted), f"{kwh:,.7f}"]
        if sums:
            agree = abs(kwh - sums[stream]) <= AGREE_KWH
            row += [f"{sums[stream]:,.7f}", "yes" if agree else "NO"]
            if not agree:
                faults.append(f"{stream}: the accepted energy is not the file's")
        table.add_row(*row)
        for n, what in ((refused, "refused"), (failed, "failed")):
            if n:
                faults.append(f"{stream}: {n:,} readings {what}")
    console.print("Per stream:")
    console.print(table)
    again = f", {tally.tried_again:,} times sent again" if tally.tried_again else ""
    console.print(
        f"{tally.done:,} readings in {seconds:,.1f} s: {tally.done / seconds:,.0f} a second{again}"
    )
    for message, times in tally.messages.most_common(MOST_MESSAGES):
        console.print(f"  {times:,} × {escape(message)}")
    return faults


def report_vehicles(
    vehicles: Sequence[tuple[Assumption, Performance | None]],
    devices: Mapping[str, DeviceCount],
    rows: int,
    console: Console,
) -> list[str]:
    """Print what the system reports of the vehicles; return what is wrong."""
    console.print("Per vehicle, as the system reports the 24 h up to its last reading:")
    console.print(_efficiency_table(vehicles, devices, rows))
    mixed = sum(has_other_readings(assumed, found, devices) for assumed, found in vehicles)
    if mixed:
        console.print(
            f"{mixed:,} vehicles have readings of another run in their 24 h too: their figures "
            "include those and are not compared"
        )
    wrong = [
        text
        for assumed, found in vehicles
        if (text := contradiction(assumed, found, devices)) is not None
    ]
    compared = len(vehicles) - mixed
    if compared:
        console.print(f"As sent and as assumed: {compared - len(wrong):,} of {compared:,} vehicles")
    for text in wrong[:MOST_MESSAGES]:
        console.print(f"  {escape(text)}")
    return [f"{len(wrong):,} vehicles are reported other than they were sent"] if wrong else []


def _efficiency_table(
    vehicles: Sequence[tuple[Assumption, Performance | None]],
    devices: Mapping[str, DeviceCount],
    rows: int,
) -> Table:
    table = _table()
    table.add_column("vehicle")
    for name in ("AC kWh", "DC kWh", "efficiency %", "assumed %", "readings"):
        table.add_column(name, justify="right")
    worst_first = sorted(vehicles, key=lambda pair: (pair[1] and pair[1].ratio) or math.inf)
    for assumed, found in worst_first[:rows]:
        ratio = found and found.ratio
        table.add_row(
            assumed.vehicle_id,
            _shown(found and found.ac_kwh, 3),
            _shown(found and found.dc_kwh, 3),
            _shown(ratio, 2),
            f"{assumed.efficiency * 100:.2f}",
            f"{found.data_points:,}" if found else "-",
            style="red" if ratio is not None and ratio < FAULT_BELOW else None,
        )
    if len(vehicles) > rows:
        table.add_row(f"… and {len(vehicles) - rows:,} more")
    ac = math.fsum(found.ac_kwh or 0 for _, found in vehicles if found)
    dc = math.fsum(found.dc_kwh or 0 for _, found in vehicles if found)
    sent_ac = math.fsum(devices[a.meter_id].kwh for a, _ in vehicles if a.meter_id in devices)
    sent_dc = math.fsum(devices[a.vehicle_id].kwh for a, _ in vehicles if a.vehicle_id in devices)
    table.add_section()
    table.add_row(
        f"all {len(vehicles):,}",
        f"{ac:,.3f}",
        f"{dc:,.3f}",
        _shown(dc / ac * 100 if ac else None, 2),
        _shown(sent_dc / sent_ac * 100 if sent_ac else None, 2),
        f"{sum(found.data_points for _, found in vehicles if found):,}",
        style="bold",
    )
    return table


def _shown(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"


def _table() -> Table:
    # Narrow enough for a terminal of 80 columns.
    return Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
