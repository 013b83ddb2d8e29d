"""``python -m benchmarks [NAME...] [--quick]``: run all benchmarks, or the named ones, and print their tables.

Each figure is one of a fresh process and has its ratio to a baseline of the same run: only ratios hold between
machines. Under each table stands what limits the figure now.
"""

import argparse
from importlib import import_module

BENCHMARKS = ("startup", "informer", "detection", "capture", "store", "supervisor")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Print tables of ratios to baselines.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}; all when none is given"
    )
    parser.add_argument("--quick", action="store_true", help="smaller and shorter, to see that it runs")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    for name in options.names or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        import_module(f"benchmarks.{name}").main(["--quick"] if options.quick else [])


if __name__ == "__main__":
    main()
