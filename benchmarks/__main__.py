"""`python -m benchmarks [NAME ...]`: run `run()` of every `bench_*.py` (or of those named) and print the ratios."""

from __future__ import annotations

import importlib
import pkgutil
import sys

from rich.console import Console
from rich.table import Table

import benchmarks


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all, and print a table."""
    modules = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name.startswith("bench_"))
    if unknown := [name for name in names if f"bench_{name}" not in modules]:
        sys.exit(f"no benchmark {unknown[0]!r}; there are: {', '.join(m.removeprefix('bench_') for m in modules)}")
    table = Table("benchmark", "ours", "plain", "unit", "ratio", "note", title="ours against the plain way, one run")
    for module in modules:
        if names and module.removeprefix("bench_") not in names:
            continue
        print(f"{module} ...", file=sys.stderr, flush=True)
        for row in importlib.import_module(f"benchmarks.{module}").run():
            table.add_row(
                row["name"],
                f"{row['ours']:.4g}",
                f"{row['plain']:.4g}",
                row["unit"],
                f"{row['ratio']:.2f}",
                row["note"],
            )
    Console(width=200 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
