"""``python -m fastops info``: what a bug report or a figure in a table should come with."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

# The instruction sets that decide how wide a vector is and whether it multiplies and adds in one step.
_NOTABLE_FEATURES = (
    "sse4.2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512fp16", "avx512bf16",
    "amx-tile", "neon", "fp16", "fullfp16", "bf16", "sve", "sve2",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a list")


def _processor_name() -> str:
    """The name on the box where the system tells it, else the architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def collect() -> dict[str, Any]:
    """Everything that the command prints, ready for JSON."""
    import llvmlite
    import llvmlite.binding
    import numba
    import numpy as np

    import fastops
    from fastops import _cache, _threads
    from fastops.simd.blocking import LANES

    features = llvmlite.binding.get_host_cpu_features()
    files, size = _cache.size()
    return {
        "fastops": fastops.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "tbb": _version("tbb"),
        "platform": platform.platform(),
        "processor": {
            "name": _processor_name(),
            "llvm_name": llvmlite.binding.get_host_cpu_name(),
            "cores": os.cpu_count(),
            "features": [name for name in _NOTABLE_FEATURES if features.get(name)],
        },
        "lanes": {str(dtype): lanes for dtype, lanes in LANES.items()},
        "threading": _threads.threading_info(),
        "checked": os.environ.get("FASTOPS_CHECKED", "") not in ("", "0"),
        "cache": {"folder": str(_cache.cache_dir()), "files": files, "bytes": size},
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    processor, threading, cache = facts["processor"], facts["threading"], facts["cache"]
    versions = [name for name in ("fastops", "python", "numpy", "numba", "llvmlite", "tbb") if facts[name] or threading["layer"] != "pool"]
    return [
        *((name, facts[name] or "not installed") for name in versions),
        ("platform", facts["platform"]),
        ("processor", f"{processor['name']} ({processor['llvm_name']}), {processor['cores']} cores"),
        ("features", " ".join(processor["features"]) or "none of note"),
        ("vector lanes", ", ".join(f"{dtype} {lanes}" for dtype, lanes in facts["lanes"].items())),
        ("threads", f"{threading['threads']} of {threading['available']}, layer {threading['layer']}"),
        ("checked mode", "on" if facts["checked"] else "off"),
        ("kernel cache", cache["folder"]),
        ("cached kernels", f"{cache['files']} files, {cache['bytes'] / 2**20:.1f} MiB"),
    ]


def run(args: argparse.Namespace) -> int:
    facts = collect()
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    lines = _lines(facts)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
    return 0
