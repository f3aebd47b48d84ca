"""Tile sizes, each with its reason.

A register tile of ``MR x NV`` vectors is the heart of every product here: per step of the reduction it loads NV
vectors, broadcasts MR scalars and does MR*NV multiply-adds. It must keep at least latency x throughput (4 x 2 = 8)
independent multiply-adds in flight, fit the registers with room for NV loads and a broadcast, and need fewer than one
load a multiply-add. Measured on one core, float32, reduction in L1:

    AVX-512 (32 registers): 8x2 239, 14x2 236, 12x2 240, 8x3 232, 6x4 234, 4x2 206 GFLOP/s
    AVX2 (16 registers):    6x2 119, 8x2 119 (spills where the loop is less tidy), 4x3 117, 4x2 104 GFLOP/s

8 rows divide nearly every channel count in use, so 32 registers take 8x2 and 16 registers 6x2.
"""

from __future__ import annotations

from typing import Final

from llvmlite import binding
from numba import config


def _features() -> dict[str, bool]:
    """The features that Numba compiles for: the host's, unless the user asked for another CPU."""
    if config.CPU_FEATURES is not None:
        return {name[1:]: name[0] == "+" for name in config.CPU_FEATURES.split(",") if name}
    if config.CPU_NAME not in (None, "", "host") and config.CPU_NAME != binding.get_host_cpu_name():
        return {}
    return dict(binding.get_host_cpu_features())


def _vector_bytes(features: dict[str, bool]) -> int:
    if features.get("avx512f"):
        return 64
    if features.get("avx"):
        return 32
    return 16  # SSE2 and NEON; LLVM splits the vector into scalars where there is no SIMD at all


_FEATURES = _features()
VECTOR_BYTES: Final = _vector_bytes(_FEATURES)
_REGISTERS: Final = 32 if VECTOR_BYTES == 64 or binding.get_process_triple().startswith(("aarch64", "arm64")) else 16

# Multiply-adds of whole vectors that a core begins in a cycle, for cost models. Zen 4 and the smaller Intel cores take two
# halves of an AVX-512 vector one after the other. A virtual machine may hide its model, so that LLVM takes a Granite Rapids for
# a Rocket Lake; tiles (AMX) are in large cores alone.
_CPU: Final = binding.get_host_cpu_name()
_HALVES: Final = ("znver4", "icelake-client", "tigerlake", "rocketlake")
FMAS_PER_CYCLE: Final = 1 if VECTOR_BYTES == 64 and _CPU in _HALVES and not _FEATURES.get("amx-tile") else 2

# A large Intel core, Sapphire Rapids or later: two multiply-adds of whole AVX-512 vectors a cycle and 2 MB of L2, so that products wait for
# memory first. They ask ahead (docs/decisions/008-products.md) and work by larger blocks. A Zen 4 is faster otherwise, others were not measured.
LARGE_CORE: Final = VECTOR_BYTES == 64 and _FEATURES.get("amx-tile", False)

# How wide loops are that do little but read and write (``separate(bits=...)``). Arrays of NumPy's own begin 16 bytes past a cache
# line, and what lies across two lines costs more by whole vectors than by halves where a core halves them anyway: on a Zen 4
# the gradient of mse_loss of 1.6 million elements takes 1.24 ms with 512 bits and 0.86 with 256, but gelu 0.66 and 0.80.
STREAM_BITS: Final = 256 if FMAS_PER_CYCLE == 1 else 512

LANES: Final = {"float32": VECTOR_BYTES // 4, "float64": VECTOR_BYTES // 8}
# dtype.char -> dtype.name, which NumPy works out anew each time, in 3 us (6 on a Zen 1).
NAMES: Final = {"f": "float32", "d": "float64"}

MR: Final = 8 if _REGISTERS == 32 else 6
NV: Final = 2

# Rows and columns of a tile of vectors of which each is a sum of products of two vectors, lane by lane: as many sums as leave
# registers for a column of the one and a vector of the other.
LANE_ROWS: Final = 3 if _REGISTERS == 32 else 4
LANE_COLS: Final = 9 if _REGISTERS == 32 else 2

# A panel of KC x NR elements of B stays in L1 while the rows of A stream past it: 256 x 128 bytes are 32 KB of 48
# with AVX-512, 256 x 64 are 16 KB of 32 with AVX2.
KC: Final = 256


def panel_width(dtype: str) -> int:
    """Columns of a register tile."""
    return NV * LANES[dtype]


# What cost models take a core's clock to be. They compare strategies with one another on one machine, so that only the
# constant parts (launches, calls) depend on it.
CYCLES_PER_NS: Final = 3.5
