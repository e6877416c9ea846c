"""`make dead-letters`, `redrive` and `discard`: what becomes of messages that were not stored.

All of them raise LocalError.
"""

import argparse
from pathlib import Path

from local import LocalError
from local.console import say

# Of a dead letter, which may have a million characters.
SHOWN_BODY = 200


def show(folder: Path, _options: argparse.Namespace) -> None:
    """List the dead letters, each with its id and reason."""
    from local.queues import LOOK_SECONDS, Queues

    queues, found = Queues.of_system(folder), 0
    for letter in queues.dead_letters():
        found += 1
        body = letter.body if len(letter.body) <= SHOWN_BODY else letter.body[:SHOWN_BODY] + " …"
        sent = f"{letter.queue}, sent {letter.sent_at:%Y-%m-%dT%H:%M:%SZ}, {letter.message_id}"
        say(f"{sent}: {letter.reason}\n  {body}")
    there = sum(depth.dead for depth in queues.depths())
    if not there:
        say("There are no dead letters.")
    elif found < there:
        say(f"Somebody else looks at {there - found} more: look again in {LOOK_SECONDS} seconds.")


def redrive(folder: Path, _options: argparse.Namespace) -> None:
    """Send the dead letters back to their queues."""
    from local.queues import Queues

    for queue, count in Queues.of_system(folder).redrive().items():
        say(f"{queue}: {count} sent back")


def discard(folder: Path, options: argparse.Namespace) -> None:
    """Delete one dead letter for good, and print its body, for whoever wants to keep it."""
    from local.queues import Queues

    if not options.message_id:
        raise LocalError("no id is given: `make discard ID=…`; `make dead-letters` lists them")
    say(Queues.of_system(folder).discard(options.message_id).body)
