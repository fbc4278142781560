"""``python -m benchmarks [--smoke] [NAME ...]``: run all benchmarks, or the named ones, one after another."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import time

import benchmarks
from common.strict_json import finite


def names() -> list[str]:
    """Every benchmark in this folder."""
    return sorted(
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")
    )


def main() -> int:
    """Run and report; a benchmark that raises fails the whole run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="smallest sizes: does it still run")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(names())
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    for name in arguments.names or names():
        started = time.monotonic()
        importlib.import_module(f"benchmarks.{name}").main(smoke=arguments.smoke)
        print(
            json.dumps(
                finite({"benchmark": name, "seconds": round(time.monotonic() - started, 1)}), allow_nan=False
            ),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
