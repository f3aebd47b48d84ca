"""The package from outside: what an import costs, which names it has, and which way its own imports run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastops
from fastops import functional

ROOT = Path(__file__).resolve().parents[1]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout


def test_import_leaves_heavy_packages_alone():
    heavy = ("numpy", "numba", "llvmlite", "scipy", "matplotlib", "rich", "torch")
    assert run_python(f"import sys, fastops; print(*(name for name in {heavy} if name in sys.modules))").split() == []


def test_import_is_quick():
    code = "import time, numpy; start = time.perf_counter(); import fastops; print(time.perf_counter() - start)"
    assert min(float(run_python(code)) for _ in range(5)) < 0.060


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", fastops.__version__)


def test_every_functional_name_is_at_the_top():
    assert len(functional.__all__) == len(set(functional.__all__))
    for name in functional.__all__:
        assert getattr(fastops, name) is getattr(functional, name)


def test_dir_and_all_tell_the_names():
    names = run_python("import fastops; print(*dir(fastops))").split()
    assert set(functional.__all__) <= set(fastops.__all__) <= set(names)
    run_python("from fastops import *; conv2d, get_num_threads")


def test_every_promised_name_resolves():
    for name in fastops.__all__:
        assert getattr(fastops, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_operation"):
        _ = fastops.no_such_operation
    with pytest.raises(ImportError, match="no_such_operation"):
        exec("from fastops import no_such_operation")


def test_types_are_published():
    assert Path(fastops.__file__).with_name("py.typed").is_file()


def test_imports_run_one_way(monkeypatch, capsys):
    from importlinter.cli import lint_imports

    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0, capsys.readouterr().out
