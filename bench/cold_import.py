"""What a cold start imports: each entry point against the packages that it cannot do without."""

import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from local import ROOT
from local.configuration import read_local_template

# pydantic's own module loads the rest of it when it is used.
PACKAGES = """
import psycopg
from pydantic import BaseModel, Field
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
"""
ENTRY_POINT = """
import importlib.util
spec = importlib.util.spec_from_file_location("entry_point", {file!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""
TIMED = """
import time
began = time.process_time()
{code}
print(time.process_time() - began)
"""
# What Lambda sets.
BY_LAMBDA = {
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
}
RUNS = 11
GOAL = 1.15


def measure_cold_import(say: Callable[[str], None]) -> dict[str, float]:
    """Return processor seconds to import the packages alone, and each entry point with all of it.

    The least of fresh interpreters taken in turn: what is above it is the machine's. Everything is
    compiled, as in the layers.
    """
    say("imports of a cold start")
    template = read_local_template({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    with TemporaryDirectory() as folder:
        layer, functions = Path(folder) / "layer", Path(folder) / "functions"
        shutil.copytree(ROOT / "layers/telemetry/python", layer)
        shutil.copytree(ROOT / "functions", functions)
        compileall.compile_dir(folder, quiet=1)
        runs: dict[str, tuple[str, Mapping[str, str]]] = {"packages": (PACKAGES, {})}
        for name, function in template.functions.items():
            file = functions / function.file.relative_to(ROOT / "functions")
            runs[name] = (ENTRY_POINT.format(file=str(file)), function.environment)
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(RUNS):
            for name, (code, environment) in runs.items():
                paths = {"PYTHONPATH": str(layer)}
                taken[name].append(_import(code, {**environment, **BY_LAMBDA, **paths}))
    return {f"import_{name}": min(times) for name, times in taken.items()}


def print_cold_import(console: Console, measured: Mapping[str, float]) -> None:
    """Print what each entry point imports, in processor time and as a ratio."""
    table = Table("cold_import", "ms", "entry point / packages", "goal")
    packages = measured["import_packages"]
    for name, seconds in measured.items():
        if name.startswith("import_"):
            ratio = f"{seconds / packages:.2f}"
            table.add_row(name[len("import_") :], f"{seconds * 1000:.0f}", ratio, f"≤ {GOAL}")
    console.print(table)


def _import(code: str, environment: Mapping[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(code=code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)
