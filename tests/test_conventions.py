"""What an operation must come with, and what must not be in the repository. Each failure prints what is missing."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import fastops
from fastops import _op, functional

ROOT = Path(__file__).resolve().parents[1]

# Public names of functional that are no operations.
HELPERS = frozenset({"explain", "gin_conv", "prepare_conv2d"})

for public_name in functional.__all__:
    getattr(functional, public_name)  # families are imported when one of their names is used

# Operations without a gradient: they give numbers of things, or choices among things.
NO_GRADIENT = frozenset({"batched_nms", "box_iou", "nms", "one_hot"})

# Operations that only rearrange their arguments for another one, whose benchmark is theirs.
MEASURED_AS = {
    "conv1d": "conv2d",
    "conv3d": "conv2d",
    "conv_transpose1d": "conv_transpose2d",
    "conv_transpose3d": "conv_transpose2d",
    "corr2d": "conv2d",
}


def words(folder: str) -> set[str]:
    """The names and strings in the code of a folder, comments and docstrings left out."""
    found: set[str] = set()
    for path in sorted((ROOT / folder).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.alias):
                found.add(node.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def complete(missing: list[str]) -> None:
    assert not missing, "missing:\n  " + "\n  ".join(missing)


def source_files() -> list[Path]:
    """The files that a commit would hold; all files where there is no git."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        paths = [ROOT / name for name in names if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts)]
    return [path for path in paths if path.is_file()]


class TestOperations:
    def test_every_public_name_is_an_operation_a_gradient_or_a_known_helper(self):
        allowed = {*_op.names(), *(f"{name}_backward" for name in _op.names()), *HELPERS}
        complete([f"{name}: register an Op in its file" for name in functional.__all__ if name not in allowed])

    def test_every_operation_is_re_exported(self):
        complete(
            [
                f"{name}: re-export it in {where}"
                for name in _op.names()
                for where, names in (("functional.py", functional.__all__), ("__init__.py", fastops.__all__))
                if name not in names
            ]
        )

    def test_every_operation_has_a_public_gradient(self):
        missing = []
        for name in _op.names():
            op = _op.get(name)
            if (op.backward is None) != (name in NO_GRADIENT):
                missing.append(f"{name}: a backward in its Op (or a line in NO_GRADIENT here)")
            if op.backward is not None and getattr(functional, f"{name}_backward", None) is not op.backward:
                missing.append(f"{name}: re-export {name}_backward in functional.py")
        complete(missing)

    def test_records_agree_with_signatures(self):
        missing = []
        for name in _op.names():
            op = _op.get(name)
            arguments = inspect.signature(op.forward).parameters
            if op.forward is not getattr(functional, name):
                missing.append(f"{name}: its Op's forward is another function")
            missing += [f"{name}: no argument {a!r}, which its Op names" for a in (*op.inputs, *op.saved) if a not in arguments]
        complete(missing)

    def test_every_operation_has_a_test_row(self):
        known = words("tests/cases")
        complete([f"{name}: a row in tests/cases/" for name in _op.names() if name not in known])

    def test_every_operation_has_a_benchmark_row(self):
        from asv_bench.benchmarks.shapes import CONV_NAMES
        from fastops.cli.shapes import SHAPES

        layers = [SHAPES[name] for name in CONV_NAMES]
        measured = words("asv_bench/benchmarks")
        measured |= {f"conv{'_transpose' * layer.transposed}{len(layer.size)}d" for layer in layers}
        unmeasured = {name for name in _op.names() if MEASURED_AS.get(name, name) not in measured}
        complete([f"{name}: a row in asv_bench/benchmarks/" for name in sorted(unmeasured)])

    def test_every_family_has_its_three_files(self):
        names = [path.stem for path in (ROOT / "fastops" / "ops").iterdir() if not path.stem.startswith("_")]
        wanted = [f"{folder}/{name}.py" for name in names for folder in ("tests/cases", "asv_bench/benchmarks")]
        complete([path for path in wanted if not (ROOT / path).is_file()])


class TestDocumentation:
    @staticmethod
    def documentation(name: str) -> str:
        """A function's docstring with those of the functions that it refers to: they need not repeat one another."""
        text, seen = "", set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in seen:
                seen.add(current)
                own = inspect.getdoc(getattr(functional, current, None)) or ""
                text += own
                waiting += re.findall(r":func:`(\w+)`", own)
        return text

    @pytest.mark.parametrize("section", ["Args:", "Returns:", "Raises:"])
    def test_sections(self, section):
        complete([f"{name}: {section}" for name in functional.__all__ if section not in self.documentation(name)])

    def test_shapes(self):
        shape = re.compile(r"\([A-Z][\w/]*,")  # as in (N, C, H, W)
        complete([f"{name}: the shapes" for name in _op.names() if not shape.search(self.documentation(name))])

    def test_examples(self):
        functions = {name: getattr(functional, name) for name in functional.__all__}
        complete([f"{name}: an example" for name, function in functions.items() if ">>> " not in (function.__doc__ or "")])

    def test_sources(self):
        missing = []
        for name in _op.names():
            module = sys.modules[_op.get(name).forward.__module__]
            if "Source" not in self.documentation(name) + (module.__doc__ or ""):
                missing.append(f"{name}: a line 'Source: ...' in its docstring or its module's")
        complete(missing)

    def test_public_functions_are_annotated(self):
        missing = []
        for name in functional.__all__:
            function = getattr(functional, name)
            hints = typing.get_type_hints(function)
            missing += [f"{name}: the type of {a}" for a in (*inspect.signature(function).parameters, "return") if a not in hints]
        complete(missing)


class TestRepository:
    def test_no_path_of_a_machine(self):
        # The classes of one letter keep this file from finding itself.
        homes = re.compile(rb"/(?:[h]ome|[U]sers)/\w+|/[r]oot/|[A-Z]:\\[U]sers")
        here = [str(path).encode() for path in (ROOT, Path.home()) if len(path.parts) > 2]
        found = []
        for path in source_files():
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                if homes.search(line) or any(name in line for name in here):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line[:120]!r}")
        assert not found, "\n".join(found)

    def test_kernels_keep_to_the_caches_and_flags_of_fastops(self):
        found = []
        for path in sorted((ROOT / "fastops").rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                flags = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                if flags.get("cache") is True or flags.get("fastmath") is True:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
        assert not found, "cache=True does not notice edited callees, fastmath=True folds isnan away:\n" + "\n".join(found)

    def test_private_parts_of_numba_stay_in_few_files(self):
        allowed = {"_jit.py", "_pipeline.py", "_cache.py", "_threads.py", "simd/vector.py"}
        private = re.compile(r"^\s*(?:from|import) numba\.(?:core|np)\b", re.MULTILINE)
        package = ROOT / "fastops"
        users = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if private.search(path.read_text("utf-8"))}
        assert users <= allowed, sorted(users - allowed)


class TestReadme:
    BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

    @pytest.fixture
    def blocks(self) -> list[tuple[str, str]]:
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        assert text.count("\n```") == 2 * len(self.BLOCK.findall(text)), "a fenced block is not closed"
        return self.BLOCK.findall(text)

    def test_the_first_two_are_one_command_each(self, blocks):
        for language, code in blocks[:2]:
            assert language == "bash"
            assert code.count("\n") == 1
            assert "pip install" in code

    @pytest.mark.skipif(os.name != "posix" or not shutil.which("bash"), reason="needs a shell")
    def test_shell_blocks_parse(self, blocks):
        for language, code in blocks:
            if language == "bash":
                subprocess.run(["bash", "-n"], input=code, text=True, check=True)

    def test_python_blocks_run(self, blocks):
        names: dict[str, object] = {}
        code = [code for language, code in blocks if language == "python"]
        assert code
        for block in code:
            exec(compile(block, "README.md", "exec"), names)

    def test_links_lead_somewhere(self):
        for name in ("README.md", "CONTRIBUTING.md"):
            targets = re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
            missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
            assert not missing, (name, missing)
