"""The store of compiled kernels: what it must find, what it must never take, and all that can go wrong with a folder."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import shutil
import stat
import sys
import textwrap
import time
from pathlib import Path

import llvmlite
import numba
import numpy as np
import pytest

from fastops import _cache, _jit, _threads
from tests.processes import ROOT, finish_python, run_python, start_python

ELSEWHERE = "other users can write there.*set FASTOPS_CACHE_DIR"

posix = pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")


def _twice(threads, x):
    for i in range(x.size):
        x[i] = x[i] * 2


def _thrice(threads, x):
    for i in range(x.size):
        x[i] = x[i] * 3


# What this process loads has the symbols of what it compiled, and is linked to that: none may be freed.
_alive: list[object] = []


def hits(py_func=_twice, factor=2, dtype=np.float64) -> int:
    """Run the function as a new process would, with nothing but the folder to go by: 1 if it was found, 0 if compiled."""
    run = _jit.launcher(py_func)
    _alive.append(run)
    x = np.arange(5, dtype=dtype)
    run(1, x)
    np.testing.assert_array_equal(x, factor * np.arange(5))
    return sum(run.dispatcher.stats.cache_hits.values())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder, which does not exist yet."""
    folder = tmp_path / "a" / "cache"
    monkeypatch.setenv("FASTOPS_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def file(folder):
    """The one file of a cache."""
    assert hits() == 0
    (file,) = folder.iterdir()
    assert hits() == 1
    return file


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Which files there are; one that was written again differs."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


class TestFolder:
    def test_override(self, folder):
        assert _cache.cache_dir() == folder

    def test_default_is_the_users_cache_folder(self, monkeypatch):
        monkeypatch.setenv("FASTOPS_CACHE_DIR", "")
        assert _cache.cache_dir().name == "fastops"
        assert _cache.cache_dir().is_absolute()

    def test_size_and_clear(self, folder):
        assert _cache.size() == (0, 0)
        assert _cache.clear() == 0
        hits()
        hits(_thrice, 3)
        (folder / "left by a killed process.partial").write_bytes(b"123")
        (folder / "somebody's.txt").write_bytes(b"1234567")
        kernels = list(folder.glob("*.kernel"))
        assert len(kernels) == 2
        assert _cache.size() == (3, 3 + sum(path.stat().st_size for path in kernels))
        assert _cache.clear() == 3
        assert _cache.size() == (0, 0)
        assert [path.name for path in folder.iterdir()] == ["somebody's.txt"]
        assert hits() == 0
        assert hits() == 1

    @posix
    def test_is_for_the_user_alone(self, file):
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    @posix
    @pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
    def test_is_not_used_when_others_can_write_there(self, file, mode):
        before = state(file.parent)
        file.parent.chmod(mode)
        with pytest.warns(UserWarning, match=ELSEWHERE):
            assert hits() == 0
        with pytest.warns(UserWarning, match=ELSEWHERE):
            assert hits(_thrice, 3) == 0
        assert state(file.parent) == before
        file.parent.chmod(0o755)
        assert hits() == 1

    @posix
    @pytest.mark.filterwarnings("error")
    def test_that_warning_as_an_error_fails_nothing(self, file):
        file.parent.chmod(0o777)
        assert hits() == 0

    @posix
    def test_is_not_used_when_it_belongs_to_another_user(self, file, monkeypatch):
        if os.geteuid() == 0:
            os.chown(file.parent, 12345, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.warns(UserWarning, match=ELSEWHERE):
            assert hits() == 0


def checked(data: bytes) -> bytes:
    """The data as a file of the cache, with its checksum."""
    return hashlib.sha256(data).digest() + data


class _Bomb:
    def __reduce__(self):
        return (int, ("not a number",))


class TestDamage:
    """A damaged file is compiled again, and written again."""

    def replaced(self, file: Path, blob: bytes) -> None:
        file.write_bytes(blob)
        assert hits() == 0
        assert hits() == 1

    @pytest.mark.parametrize("part", [0, 1, 31, 32, 33, 0.5, -1])
    def test_truncated(self, file, part):
        blob = file.read_bytes()
        self.replaced(file, blob[: int(part * len(blob)) if isinstance(part, float) else part])

    @pytest.mark.parametrize("at", [0, 31, 32, -1])
    def test_one_bit(self, file, at):
        blob = bytearray(file.read_bytes())
        blob[at] ^= 1
        self.replaced(file, bytes(blob))

    def test_garbage(self, file):
        self.replaced(file, np.random.default_rng(0).bytes(10_000))

    def test_longer(self, file):
        self.replaced(file, file.read_bytes() + b"\0")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"no pickle",
            pickle.dumps(None),
            pickle.dumps(("name", [], None)),
            pickle.dumps(_Bomb()),
        ],
    )
    def test_good_checksum_of_something_else(self, file, data):
        self.replaced(file, checked(data))

    @pytest.mark.parametrize(
        "externals, payload",
        [
            ([], None),
            ([], (1, 2, 3)),
            ([("fastops.no_such_module", "f", ())], None),
            ([("fastops._cache", "no_such_function", ())], None),
            (5, None),
        ],
    )
    def test_good_checksum_and_name_of_something_else(self, file, externals, payload):
        self.replaced(file, checked(pickle.dumps((file.name, externals, payload))))

    def test_another_kernel(self, file):
        """Whole, of the same types, but not the kernel that its name says."""
        hits(_thrice, 3)
        (other,) = set(file.parent.iterdir()) - {file}
        self.replaced(file, other.read_bytes())

    def test_a_folder_in_its_place(self, file):
        file.unlink()
        file.mkdir()
        assert hits() == 0
        assert [path.name for path in file.parent.iterdir()] == [file.name]


class TestWriting:
    """A folder that takes no files: every call compiles, none fails, nothing half-written stays."""

    def nothing_kept(self, folder: Path) -> None:
        for _ in range(2):
            assert hits() == 0
        assert not os.path.isdir(folder) or not os.listdir(folder)

    @pytest.mark.parametrize("below", ["", "cache", "deep/down"])
    def test_a_file_is_in_the_way(self, tmp_path, monkeypatch, below):
        in_the_way = tmp_path / "file"
        in_the_way.write_bytes(b"")
        monkeypatch.setenv("FASTOPS_CACHE_DIR", str(in_the_way / below))
        self.nothing_kept(in_the_way / below)
        assert _cache.size() == (0, 0)
        assert _cache.clear() == 0

    def test_a_path_that_no_system_takes(self, monkeypatch):
        path = "x" * 5000
        monkeypatch.setenv("FASTOPS_CACHE_DIR", path)
        self.nothing_kept(Path(path))
        assert _cache.size() == (0, 0)
        assert _cache.clear() == 0

    @pytest.mark.parametrize("function", ["mkdir", "mkstemp", "replace"])
    def test_read_only(self, folder, monkeypatch, function):
        def refuse(*args, **kwargs):
            raise OSError(errno.EROFS, "Read-only file system")

        owner = {"mkdir": Path, "mkstemp": _cache.tempfile, "replace": os}[function]
        monkeypatch.setattr(owner, function, refuse)
        self.nothing_kept(folder)

    @pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
    def test_disk_full_or_interrupted(self, folder, monkeypatch, failure):
        whole = os.fdopen

        class Full:
            def __init__(self, *args):
                self.file = whole(*args)

            def __enter__(self):
                return self

            def __exit__(self, *error):
                self.file.close()

            def write(self, data):
                self.file.write(data[:100])
                self.file.flush()
                assert _cache.size() == (1, 100)
                raise failure

        monkeypatch.setattr(os, "fdopen", Full)
        if isinstance(failure, KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt):
                hits()
            assert not any(folder.iterdir())
        else:
            self.nothing_kept(folder)

    def test_a_closure_cannot_be_kept(self):
        def kernel(x):
            pass

        for decorate in (_jit.separate, _jit.launcher):
            with pytest.raises(TypeError, match="a kernel made inside a function needs a name of its own"):
                decorate(kernel)

    def test_a_function_typed_at_a_prompt_is_not_kept(self, folder):
        code = """
            import numpy as np
            from fastops import _jit
            @_jit.launcher
            def f(threads, x):
                x[0] = 7
            x = np.zeros(1)
            f(1, x)
            assert x[0] == 7
        """
        run_python(textwrap.dedent(code), FASTOPS_CACHE_DIR=folder)
        assert not folder.exists()


class TestKey:
    """Everything that machine code depends on gives a file of its own."""

    def test_types_and_flags(self, folder):
        assert [hits(), hits(dtype=np.float32), hits(dtype=np.int64)] == [0, 0, 0]
        assert len(state(folder)) == 3
        x = np.ones(3)
        _alive.append(_jit._compiled(_twice, **_jit.REDUCTION_FLAGS))
        _alive[-1](1, x)
        assert len(state(folder)) == 4
        assert [hits(), hits(dtype=np.float32), hits(dtype=np.int64)] == [1, 1, 1]

    def test_versions(self, file, monkeypatch):
        for owner, name, value in (
            (numba, "__version__", "0.0.1"),
            (llvmlite, "__version__", "0.0.1"),
            (sys, "version_info", (3, 99, 0, "final", 0)),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, value)
                assert hits() == 0
            assert hits() == 1

    def test_environment(self, folder, monkeypatch):
        """Checked mode, processor, features, and what Numba can be told about optimisation."""
        code = """
            import numba
            from fastops._jit import address_of
            from fastops.simd.pack import pack_panels
            array = numba.types.float32[::1]
            address_of(pack_panels, *[numba.types.intp] * 2, array, *[numba.types.intp] * 5, array)
        """
        code = textwrap.dedent(code)
        environments = [
            {"FASTOPS_CHECKED": ""},
            {"FASTOPS_CHECKED": "1"},
            {"FASTOPS_CHECKED": "", "NUMBA_OPT": "2"},  # none that the tests themselves may run with
            {"FASTOPS_CHECKED": "", "NUMBA_CPU_NAME": "generic"},
            {"FASTOPS_CHECKED": "", "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+popcnt"},
        ]
        for process in [start_python(code, FASTOPS_CACHE_DIR=folder, **e) for e in environments]:
            finish_python(process)
        before = state(folder)
        assert len(before) == len(environments)
        run_python(code, FASTOPS_CACHE_DIR=folder, **environments[1])
        assert state(folder) == before


class TestSources:
    def test_imports_wherever_they_stand(self):
        source = '''
            import os, fastops.a.b
            import fastopsish
            from fastops import _jit, conv2d
            from fastops.simd import (gemm,
                                      pack)
            from fastops.simd.vector import load as _load, store
            from . import conv
            from .spec import ConvSpec
            from ...simd import *
            from fastops.simd.product import (  # one (of many
                block_product,
            )
            from fastops.simd \\
                import reduce
            import math; import fastops.simd.vmath as vmath, \\
                fastops.simd.segments
            def late():
                if True: from .layout import side
                """>>> import fastops.functional as F"""
                # import fastops.cli
                with open("import.txt"):
                    from fastops.simd.finish import activate
            '''
        found = _cache._imports(textwrap.dedent(source), "fastops.ops.conv.new", is_package=False)
        conv, simd = "fastops.ops.conv", "fastops.simd"
        assert found == {
            "fastops.a.b", "fastops", "fastops._jit", f"{simd}.gemm", f"{simd}.pack", f"{simd}.vector", f"{conv}.conv", f"{conv}.spec",
            simd, f"{simd}.product", f"{simd}.reduce", f"{simd}.vmath", f"{simd}.segments", f"{conv}.layout", f"{simd}.finish",
        }  # fmt: skip
        assert _cache._imports("from . import spec", conv, is_package=True) == {f"{conv}.spec"}

    def test_an_edit_reaches_what_imports_it_and_no_more(self):
        def reached(module: str) -> set[str]:
            todo, seen = [module], set()
            while todo:
                source = _cache._module_source(module := todo.pop())
                if source is not None and module not in seen:
                    seen.add(module)
                    todo += source.imports
            return seen

        assert {"fastops._jit", "fastops.simd.vector", "fastops.simd.blocking"} <= reached("fastops.simd.gemm")
        assert reached("fastops.simd.vmath") == {
            "fastops.simd.vmath",
            "fastops._jit",
            "fastops._cache",
            "fastops._collector",
            "fastops._pipeline",
            "fastops._thread_pool",
            "fastops._threads",
        }
        assert "fastops.ops.conv.winograd" not in reached("fastops.ops.conv.naive")

    def test_what_has_no_source_has_no_digest(self):
        assert _cache.sources_digest("fastops.no_such_module") == ""
        assert _cache.sources_digest("sys") == ""

    def test_a_source_edited_since_the_start_is_not_believed(self, tmp_path, monkeypatch):
        """The process runs what the file said before, and would keep that under what the file says now."""
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "edited_meanwhile.py").write_text("import fastops._jit\n")
        assert _cache.sources_digest("edited_meanwhile") == ""
        time.sleep(0.01)
        (tmp_path / "there_before.py").write_text("import fastops._jit\n")
        monkeypatch.setattr(_cache, "_STARTED", time.time() + 1)
        assert _cache.sources_digest("there_before") != ""


# ---- a package of its own, whose sources can be edited

HELPER = """
from fastops._jit import function

@function
def scale(x):
    return x * 3
"""

CALLER = """
from fastops._jit import call, function, launcher, parallel, separate
from fastops.helper import scale

@separate
def element(i, x):
    x[i] = scale(x[i])

@separate
def body(block, worker, x):
    call(element, (block, x))

@launcher
def run(threads, x):
    parallel(body, x.size, threads, (x,))
"""

UNRELATED = """
from fastops._jit import launcher

@launcher
def negate(threads, x):
    for i in range(x.size):
        x[i] = -x[i]
"""

PRINT_RESULTS = """
import sys
import numpy as np
from fastops.caller import run
from fastops.unrelated import negate
for dtype in sys.argv[1:] or ["float64"]:
    x = np.arange(1, 6).astype(dtype)
    run(2, x)
    negate(2, x)
    print(*x.astype(int))
"""


@pytest.fixture
def tree(tmp_path):
    """The foundation of fastops with a few small kernels on it."""
    package = tmp_path / "tree" / "fastops"
    package.mkdir(parents=True)
    for name in ("__init__", "_cache", "_collector", "_jit", "_pipeline", "_thread_pool", "_threads"):
        shutil.copy(ROOT / "fastops" / f"{name}.py", package)
    for name, text in (("helper", HELPER), ("caller", CALLER), ("unrelated", UNRELATED)):
        (package / f"{name}.py").write_text(text)
    return package


def test_a_second_process_finds_it_and_an_edit_compiles_what_it_can_reach(tree, folder):
    def results() -> str:
        return run_python(PRINT_RESULTS, root=tree.parent, FASTOPS_CACHE_DIR=folder).strip()

    def written(before: dict) -> set[str]:
        return {name.partition("-")[0] for name, version in state(folder).items() if before.get(name) != version}

    assert results() == "-3 -6 -9 -12 -15"
    first = state(folder)
    sharing = {"_share_by_pool", "attend"} if _threads.POOL else {"_share_by_numba"}
    assert {"element", "body", "run", *sharing, "negate"} == written({})
    assert results() == "-3 -6 -9 -12 -15"
    assert written(first) == set()
    # a constant in a module that only the module of the kernel names
    (tree / "helper.py").write_text(HELPER.replace("3", "5"))
    assert results() == "-5 -10 -15 -20 -25"
    assert written(first) == {"element", "body", "run"}
    # and back: what was compiled before is still there
    second = state(folder)
    (tree / "helper.py").write_text(HELPER)
    assert results() == "-3 -6 -9 -12 -15"
    assert written(second) == set()
    # a damaged callee alone is compiled again
    (element,) = (name for name in first if name.startswith("element") and name in second)
    (folder / element).write_bytes(b"")
    assert results() == "-3 -6 -9 -12 -15"
    assert written(second) == {"element"}


def test_what_was_compiled_before_needs_no_compiler(tree, folder):
    """What Numba fetches to compile takes half a second: a process that finds all its kernels does without."""
    code = PRINT_RESULTS + "print('numba.np.arraymath' in sys.modules)"
    fetched = [run_python(code, root=tree.parent, FASTOPS_CACHE_DIR=folder).split()[-1] for _ in range(2)]
    assert fetched == ["True", "False"]


def test_two_commits_share_a_folder(tree, folder, tmp_path):
    """As asv does: environments of two commits, which differ in a callee, run in turns, and neither runs the other's code."""
    other = tmp_path / "other" / "fastops"
    shutil.copytree(tree, other)
    (other / "helper.py").write_text(HELPER.replace("3", "5"))

    def results(package: Path) -> str:
        return run_python(PRINT_RESULTS, root=package.parent, FASTOPS_CACHE_DIR=folder).strip()

    assert results(tree) == "-3 -6 -9 -12 -15"
    first = state(folder)
    assert results(other) == "-5 -10 -15 -20 -25"
    both = state(folder)
    # What the callee cannot reach was not compiled again; and nothing of the first commit was overwritten.
    assert {name.partition("-")[0] for name in both.keys() - first.keys()} == {"element", "body", "run"}
    assert first.items() <= both.items()
    for _ in range(2):
        assert results(tree) == "-3 -6 -9 -12 -15"
        assert results(other) == "-5 -10 -15 -20 -25"
    assert state(folder) == both


def test_processes_at_once(tree, folder):
    """The same and different signatures into one folder, while somebody clears it."""
    everything = ["float32", "float64", "int32", "int64"]
    orders = [everything, everything, everything[::-1], everything[2:] + everything[:2]]
    processes = []
    for order in orders:
        code = f"import sys; sys.argv[1:] = {order}\n{PRINT_RESULTS}"
        processes.append(start_python(code, root=tree.parent, FASTOPS_CACHE_DIR=folder))
    while not folder.exists() and any(process.poll() is None for process in processes):
        time.sleep(0.01)
    _cache.clear()
    for process in processes:
        assert finish_python(process).split("\n")[:4] == ["-3 -6 -9 -12 -15"] * 4
    assert not list(folder.glob("*.partial"))
    code = f"import sys; sys.argv[1:] = {everything}\n{PRINT_RESULTS}"
    run_python(code, root=tree.parent, FASTOPS_CACHE_DIR=folder)
    before = state(folder)
    assert len(before) == (2 if _threads.POOL else 1) + 4 * 4  # what shares blocks out; element, body, run, negate for each type
    run_python(code, root=tree.parent, FASTOPS_CACHE_DIR=folder)
    assert state(folder) == before


FACTORY = """
from fastops._jit import function, launcher

def make(n):
    @function
    def stretch(x, s):  # too long to be inlined at every call
        for j in range(s, x.size):
            x[j] += n * x[j - 1]
            x[j - 1] -= x[j] * n
        for j in range(s + 1, x.size):
            x[j] += n * x[j - 2]
            x[j - 2] -= x[j - 1] * x[j] + n
    return stretch

by_one, by_two = make(1), make(2)

@launcher
def one(threads, x):
    for i in range(1, 4):
        by_one(x, i)
        by_one(x, i + 1)

@launcher
def two(threads, x):
    for i in range(1, 4):
        by_two(x, i)
        by_two(x, i + 1)
"""


def test_functions_of_one_factory_in_kernels_of_different_processes(tree, folder):
    """Each process compiles one kernel; one that loads both must not take a function of the one for that of the other."""
    (tree / "factory.py").write_text(FACTORY)

    def run(*names: str) -> list[str]:
        code = f"""
import numpy as np
import fastops.factory
for name in {names}:
    x = np.arange(8.0)
    getattr(fastops.factory, name)(1, x)
    print(x.tolist())
"""
        return run_python(code, root=tree.parent, FASTOPS_CACHE_DIR=folder).splitlines()

    alone = [*run("one"), *run("two")]
    assert alone[0] != alone[1]
    before = state(folder)
    assert run("one", "two") == alone
    assert run("two", "one") == alone[::-1]
    assert state(folder) == before


SAMPLE = """
from fastops._jit import launcher
from fastops.simd.vmath import exp

@launcher
def uses_exp(threads, x):
    x[0] = exp(x[0])
"""


@pytest.mark.full
def test_an_edit_in_the_whole_package(tmp_path, folder):
    """The slope of leaky_relu, which reaches the convolution through two modules, and another function not at all."""
    root = tmp_path / "tree"
    shutil.copytree(ROOT / "fastops", root / "fastops", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
import numpy as np, fastops
from fastops.sample import uses_exp
uses_exp(1, np.ones(3))
y = fastops.conv2d(-np.ones((1, 1, 3, 3)), np.ones((1, 1, 1, 1)), activation="leaky_relu", strategy="naive")
print(round(float(y.flat[0]), 6))
"""
    (root / "fastops" / "sample.py").write_text(SAMPLE)
    assert run_python(code, root=root, FASTOPS_CACHE_DIR=folder).strip() == "-0.01"
    before = state(folder)
    formulas = root / "fastops" / "simd" / "activations.py"
    text = formulas.read_text()
    assert text.count("LEAKY_RELU_SLOPE = 0.01\n") == 1
    formulas.write_text(text.replace("LEAKY_RELU_SLOPE = 0.01\n", "LEAKY_RELU_SLOPE = 0.25\n"))
    assert run_python(code, root=root, FASTOPS_CACHE_DIR=folder).strip() == "-0.25"
    written = {name.partition("-")[0] for name, version in state(folder).items() if before.get(name) != version}
    assert "apply" in written
    assert "uses_exp" not in written
