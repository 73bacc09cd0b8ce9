"""`python -m benchmarks [NAME ...] [--write]`: run `run()` of every `bench_*.py`, or of those named.

Each figure is printed when it is measured. `--write` puts them into docs/performance.md, a table per benchmark with the
machine, in the place of what an earlier run wrote there.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import platform
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import benchmarks

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
_END = "<!-- end of measurement -->"


def names() -> list[str]:
    """Return the names of the benchmarks in the order of the alphabet."""
    modules = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    return sorted(name.removeprefix("bench_") for name in modules if name.startswith("bench_"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the named benchmarks, or all; print their figures and write them if that is wanted."""
    known = names()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(known)}; all by default")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {DOCUMENT.name}")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(known):
        parser.error(f"no benchmark {min(unknown)!r}; there are: {', '.join(known)}")
    for name in given.names or known:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows = []
        for row in importlib.import_module(f"benchmarks.bench_{name}").run():
            rows.append(row)
            print(_line(row), flush=True)
        if given.write:
            text = DOCUMENT.read_text(encoding="utf-8")
            DOCUMENT.write_text(with_measurement(text, name, rows), encoding="utf-8")


def _line(row: dict[str, Any]) -> str:
    """Return a figure as a row of a Markdown table."""
    figures = f"{row['ours']:.4g} | {row['plain']:.4g} | {row['unit']} | {row['ratio']:.2f}"
    return f"| {row['name']} | {figures} | {row['note']} |"


def with_measurement(text: str, name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return a document with the figures of a benchmark between its markers.

    Raises
    ------
    ValueError
        The document has no markers for it.
    """
    start = f"<!-- measured: {name} -->\n"
    if start not in text:
        raise ValueError(f"{DOCUMENT} has no line {start.strip()!r}")
    machine = f"{processor()}, {os.cpu_count()} cores; torch {version('torch')}, {datetime.now(UTC):%Y-%m-%d}."
    table = ["| what | ours | plain | unit | ratio | plain is |", "| --- | --- | --- | --- | --- | --- |"]
    content = "\n".join([machine, "", *table, *map(_line, rows)])
    before, _, rest = text.partition(start)
    return f"{before}{start}{content}\n{_END}{rest.partition(_END)[2]}"


def processor() -> str:
    """Return the name of the processor."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
