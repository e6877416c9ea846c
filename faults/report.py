"""The table of `make faults`: a line for each fault, and one for all of them."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from faults.checker import SOON, Verdict

# What every line has, and the last one the sum of.
_COUNTS = {
    "201": "stored_at_once",
    "202": "queued",
    "refused": "refused",
    "stored": "stored",
    "erased": "erased",
    "lost": "lost",
    "doubled": "doubled",
    "wrong": "wrong",
}


def print_table(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print what became of the readings that were first sent during each fault."""
    table = Table(box=SIMPLE, padding=(0, 1), pad_edge=False)
    table.add_column("fault", no_wrap=True)
    for name in (*_COUNTS, f"≤ {SOON:.0f} s", "longest", "handled"):
        table.add_column(name, justify="right", no_wrap=True)
    summed = (*_COUNTS.values(), "requests", "soon")
    everything = Verdict(
        "all",
        **{field: sum(getattr(each, field) for each in verdicts) for field in summed},
        longest=max(each.longest for each in verdicts),
        longest_handling=max(each.longest_handling for each in verdicts),
    )
    for verdict in (*verdicts, everything):
        table.add_row(
            verdict.fault,
            *(f"{getattr(verdict, field):,}" for field in _COUNTS.values()),
            f"{verdict.soon / max(1, verdict.requests):.1%}",
            f"{verdict.longest:.2f} s",
            f"{verdict.longest_handling:.2f} s",
        )
    console.print(table)
    console.print(
        "Readings are with the fault during which they were first sent. "
        "lost: acknowledged, and not stored as sent; doubled: more receipts than requests; "
        "wrong: refused, or erased, and stored, or the like. "
        "≤ 1 s, longest: how long devices waited; "
        "handled: of that in the API, without the wait for one of its few processes."
    )
