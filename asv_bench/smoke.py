"""``python -m asv_bench.smoke``: every benchmark with every parameter set once, at a tiny size, so that none is found broken by asv.

Ends with the line ``N passed, 0 failed`` and status 0, or with the failures and status 1.
"""

from __future__ import annotations

import os
import sys
import traceback

from asv_bench.catalogue import Benchmark, find


def once(benchmark: Benchmark) -> None:
    result = benchmark.run(benchmark.setup())
    if benchmark.method.startswith("track_") and not isinstance(result, (int, float)):
        raise TypeError(f"{benchmark.method} returned {result!r}, not a number")


def main() -> int:
    os.environ["FASTOPS_BENCH_TINY"] = "1"
    benchmarks, broken = find()
    passed, refused, failed = 0, 0, len(broken)
    for name, error in broken.items():
        print(f"FAILED to import {name}\n{error}", file=sys.stderr)
    for benchmark in benchmarks:
        try:
            once(benchmark)
        except NotImplementedError:
            refused += 1
        except Exception:
            failed += 1
            print(f"FAILED {benchmark.label}\n{traceback.format_exc()}", file=sys.stderr)
        else:
            passed += 1
    if refused:
        print(f"{refused} combinations of a strategy and a shape that it does not take")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    raise SystemExit(main())
