"""Content-addressed store of compiled kernels.

One file holds one compiled signature of one function. Its name is the SHA-256 of everything that the machine code
depends on: the sources of the function's module and of every fastops module that it imports, directly or not; the
versions of Numba, llvmlite and Python; the CPU's name and features; flags; the function and its argument types. So an
edit recompiles what it can reach and nothing else, and two checkouts can share a folder. Numba's own ``cache=True``
does none of this: it never learns that a callee in another file changed, and concurrent writers can poison its index.

A file is a checksum followed by the pickled object code. It is written under a temporary name and renamed into place,
so readers see a whole file or none. Whatever goes wrong here (a folder that cannot be written, a full disk, a damaged
file) means compiling again, never failing. Since loading a file runs code from it, a folder in which others can write is
not used.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import itertools
import os
import pickle
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import numba
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

from fastops._pipeline import set_environments

_PACKAGE = __name__.partition(".")[0]
_CHECKSUM = 32
_STARTED = time.time()
_COMMENT = re.compile(r"(?:#|>>>).*|\\\n")
_IMPORT = re.compile(r"\b(?:from\s+([.\w]+)\s*)?\bimport\b\s*(\([^)]*\)|[^\n;]+)")
_EXTERNAL = re.compile(rb"fastops_separate_[0-9a-f]{32}")


def _number_functions_apart() -> None:
    """Begin Numba's numbering of functions anywhere but at 1.

    The number is the only thing that tells two functions made by one factory apart in the symbols of machine code. From
    1 on, different processes give different functions the same number; a third process that loads a kernel of each
    would link both to the function that came first.
    """
    FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6), "big"))


_number_functions_apart()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_number_functions_apart)


def cache_dir() -> Path:
    """The folder of compiled kernels: ``FASTOPS_CACHE_DIR``, or the user's cache folder."""
    override = os.environ.get("FASTOPS_CACHE_DIR")
    if override:
        return Path(override)
    from platformdirs import user_cache_path

    return user_cache_path(_PACKAGE, appauthor=False)


def _files() -> list[Path]:
    try:
        return [p for p in cache_dir().iterdir() if p.suffix in (".kernel", ".partial")]
    except OSError:
        return []


def size() -> tuple[int, int]:
    """How many files the cache holds, and their bytes."""
    sizes = []
    for path in _files():
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # removed by another process meanwhile
            continue
    return len(sizes), sum(sizes)


def clear() -> int:
    """Removes every compiled kernel from disk; returns how many files went."""
    removed = 0
    for path in _files():
        try:
            path.unlink()
            removed += 1
        except OSError:
            continue
    return removed


@cache
def _spec(module: str) -> Any:
    """Where a module is; None when there is none of that name."""
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None


def _imports(source: str, module: str, is_package: bool) -> set[str]:
    """The fastops modules named by the import statements of a module, wherever they stand in it.

    Of ``from package import module`` that is the module alone: the package's own names would lead to everything. Read by
    a pattern, which takes 20 ms for the twenty modules of a convolution (``ast`` 250): whatever else looks like an import
    adds a module that does not matter. An import behind a # in a string, on the same line, would be missed.
    """
    found: set[str] = set()
    parent = module.split(".") if is_package else module.split(".")[:-1]
    for base, listed in _IMPORT.findall(_COMMENT.sub("", source)):
        names = [name.split()[0] for name in listed.strip("()").split(",") if name.strip()]
        if not base:
            found.update(names)
            continue
        inner = base.lstrip(".")
        level = len(base) - len(inner)
        above = parent[: len(parent) - level + 1] if level else []
        whole = ".".join([*above, *([inner] if inner else [])])
        if whole.partition(".")[0] == _PACKAGE:
            found.update(f"{whole}.{name}" if _spec(f"{whole}.{name}") is not None else whole for name in names)
    return {name for name in found if name.partition(".")[0] == _PACKAGE}


class _Source(NamedTuple):
    text: bytes
    imports: frozenset[str]
    edited: bool  # since this process began, which may run what the file said before


@cache
def _module_source(module: str) -> _Source | None:
    """The source of a module and the fastops modules that it imports; None when there is no such module."""
    try:
        spec = _spec(module)
        if spec is None or spec.origin is None:
            return None
        text = Path(spec.origin).read_bytes()
        status = os.stat(spec.origin)
        # a time in the future is another machine's clock, and tells nothing
        edited = _STARTED < max(status.st_mtime, status.st_ctime) <= time.time()
        imports = _imports(text.decode(), module, spec.submodule_search_locations is not None)
        return _Source(text, frozenset(imports), edited)
    except (OSError, SyntaxError, ValueError):
        return None


@cache
def sources_digest(module: str) -> str:
    """SHA-256 of the sources that can reach a module's machine code; empty when they are not known for certain."""
    seen: dict[str, bytes] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        known = _module_source(name)
        if known is None:
            if name == module:  # typed at a prompt or run from a string: there is no file to speak for it
                return ""
            continue
        if known.edited:
            return ""
        seen[name] = known.text
        todo.extend(known.imports)
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(f"{name}\0{len(seen[name])}\0".encode() + seen[name])
    return digest.hexdigest()


def _private(folder: Path) -> bool:
    """Whether nobody but the user and root can put files into the folder; one that does not exist yet is made so."""
    if os.name != "posix":
        return True
    try:
        status = folder.stat()
    except OSError:
        return True
    if status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022:
        return True
    warnings.warn(
        f"fastops: compiled kernels are not kept in {folder}, since other users can write there: "
        "take that permission away (chmod go-w), or set FASTOPS_CACHE_DIR to a folder of your own",
        stacklevel=2,
    )
    return False


class _Impl(CompileResultCacheImpl):  # type: ignore[misc]
    """Numba's (de)serialisation of a compiled function, without its ideas of where and when."""

    def __init__(self) -> None:
        pass

    @property
    def locator(self) -> Any:
        return self


class KernelCache(FunctionCache):  # type: ignore[misc]
    """What a Numba dispatcher asks for compiled code and hands compiled code to."""

    def __init__(self, py_func: Callable[..., Any], options: dict[str, Any], environment: tuple[Any, ...], externals: Externals) -> None:
        self._py_func = py_func
        self._name = py_func.__qualname__
        self._module = py_func.__module__
        self._static = (
            repr(sorted((k, sorted(v) if isinstance(v, set) else v) for k, v in options.items())),
            environment,
        )
        self._externals = externals
        self._impl = _Impl()
        self._impl_class = _Impl
        self.enable()

    @property
    def cache_path(self) -> str:
        return str(cache_dir())

    def flush(self) -> None:
        """Part of Numba's interface; there is no index to flush."""

    def _path(self, signature: Any, codegen: Any) -> Path | None:
        sources = sources_digest(self._module)
        folder = cache_dir()
        if not sources or not _private(folder):
            return None
        versions = (numba.__version__, llvmlite.__version__, sys.version_info[:3])
        key = (sources, versions, codegen.magic_tuple(), self._static, self._module, self._name, str(signature))
        return folder / f"{self._name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:40]}.kernel"

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        try:
            rtsys.initialize(target_context)
            path = self._path(signature, target_context.codegen())
            if path is None:
                return None
            blob = path.read_bytes()
            if hashlib.sha256(blob[_CHECKSUM:]).digest() != blob[:_CHECKSUM]:
                return None
            name, externals, payload = pickle.loads(blob[_CHECKSUM:])
            if name != path.name:
                return None
            for external in externals:
                self._externals.load(external)
            result = self._impl.rebuild(target_context, payload)
            return result if tuple(result.signature.args) == tuple(signature) else None
        except Exception:
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        try:
            path = self._path(signature, result.codegen)
            if path is None or not self._impl.check_cachable(result):
                return
            payload = self._impl.reduce(result)
            names = {m.decode() for m in _EXTERNAL.findall(dumps(payload))}
            data = dumps((path.name, [self._externals.describe(name) for name in sorted(names)], payload))
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(suffix=".partial", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as f:
                    f.write(hashlib.sha256(data).digest() + data)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except Exception:
            return


class Externals:
    """Functions that other compiled functions call through a symbol (see ``_jit.separate``)."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Any] = {}
        self._known: dict[str, tuple[str, str, Any]] = {}
        self._kept: dict[int, Any] = {}

    def add(self, dispatcher: Any) -> None:
        """Makes a function known under its module and name, by which the kernels that call it ask for it."""
        self._made[dispatcher.py_func.__module__, dispatcher.py_func.__qualname__] = dispatcher

    @staticmethod
    def symbol(dispatcher: Any, argtypes: tuple[Any, ...]) -> str:
        text = f"{dispatcher.py_func.__module__}\0{dispatcher.py_func.__qualname__}\0{argtypes}"
        return "fastops_separate_" + hashlib.sha256(text.encode()).hexdigest()[:32]

    def link(self, dispatcher: Any, argtypes: tuple[Any, ...]) -> str:
        """Compiles (or loads) the function for these types and makes its address known under the symbol returned."""
        import llvmlite.binding

        name = self.symbol(dispatcher, argtypes)
        if name not in self._known:
            llvmlite.binding.add_symbol(name, self.address(dispatcher, argtypes))
            self._known[name] = (dispatcher.py_func.__module__, dispatcher.py_func.__qualname__, argtypes)
        return name

    def address(self, dispatcher: Any, argtypes: tuple[Any, ...]) -> int:
        with global_compiler_lock:
            dispatcher.compile(argtypes)
            result = dispatcher.overloads[argtypes]
            address = int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))
            set_environments(result.library)
        self._kept[address] = result.library  # others have the address, so the code must outlive the dispatcher
        return address

    def describe(self, name: str) -> tuple[str, str, Any]:
        return self._known[name]

    def load(self, external: tuple[str, str, Any]) -> None:
        module, qualname, argtypes = external
        importlib.import_module(module)
        self.link(self._made[module, qualname], argtypes)
