"""The whole system on one machine, without Docker and without an AWS account."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Lambda has the layers on the path of every function; so have the processes here.
sys.path.insert(0, str(ROOT / "layers/telemetry/python"))


class LocalError(Exception):
    """Something that the person at the keyboard can mend; the message says how."""
