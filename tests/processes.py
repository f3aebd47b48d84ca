"""Python processes of their own: for what only a fresh process, or one that may die, can show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start_python(code: str, *, root: Path = ROOT, **environment: object) -> subprocess.Popen[str]:
    """Start a process that runs ``code`` with the package found in ``root``."""
    variables = {name: str(value) for name, value in environment.items()}
    if root != ROOT:
        # Sources that a test edits twice within a second would run as the first edit's bytecode.
        variables["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root), **variables},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish_python(process: subprocess.Popen[str], seconds: float = 240) -> str:
    """What the process printed; it must have succeeded."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"not done after {seconds} s\n{out}\n{err}") from None
    assert process.returncode == 0, f"exit status {process.returncode}\n{out}\n{err}"
    return out


def run_python(code: str, *, root: Path = ROOT, seconds: float = 240, **environment: object) -> str:
    """Run ``code`` to its end."""
    return finish_python(start_python(code, root=root, **environment), seconds)
