"""The migrations and functions of releases, as their databases have them.

`write()` adds those of this version: once for each release (CONTRIBUTING.md), never again.
"""

import re
from pathlib import Path

import telemetry
from telemetry import __version__
from telemetry.migrate import Migration, shipped_migrations
from telemetry.stored_functions import FunctionFile, shipped_functions
from telemetry.streams import STREAMS

FOLDER = Path(__file__).parent
_CALL = re.compile(r"\b([a-z_{}.]+)\(")
RELEASES = sorted(path.name for path in FOLDER.iterdir() if (path / "migrations").is_dir())


def released_migrations(release: str) -> list[Migration]:
    files = sorted((FOLDER / release / "migrations").glob("*.sql"))
    return [Migration(file.stem, file.read_text(encoding="utf-8")) for file in files]


def released_functions(release: str) -> list[FunctionFile]:
    files = sorted((FOLDER / release / "functions").glob("*.sql"))
    return [FunctionFile(file.stem, file.read_text(encoding="utf-8")) for file in files]


def called_by_code(release: str) -> set[str]:
    """Return the functions that Python of a release calls; only functions call the others."""
    return set((FOLDER / release / "called.txt").read_text(encoding="utf-8").split())


def _find_called() -> set[str]:
    layer = Path(telemetry.__file__).parent
    code = "".join(file.read_text(encoding="utf-8") for file in layer.glob("*.py"))
    made = "".join(file.statements for file in shipped_functions())
    names = set(re.findall(r"^CREATE OR REPLACE FUNCTION (\w+)", made, re.M))
    called = {
        re.sub(r"\{+[a-z.]*stream\}+", stream, call)
        for stream in STREAMS
        for call in _CALL.findall(code)
    }
    return names & called


def write() -> None:
    for kind, files in (("migrations", shipped_migrations()), ("functions", shipped_functions())):
        folder = FOLDER / __version__ / kind
        folder.mkdir(parents=True)
        for file in files:
            (folder / f"{file.name}.sql").write_text(file.statements, encoding="utf-8")
    called = "".join(f"{name}\n" for name in sorted(_find_called()))
    (FOLDER / __version__ / "called.txt").write_text(called, encoding="utf-8")
