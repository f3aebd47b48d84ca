"""Files of arrays: safetensors, NumPy's npz, and what ``torch.save`` writes.

The last are pickles, which can run anything when Python loads them. Here nothing of a file is run: :class:`_Reader` knows
the opcodes that containers, numbers, strings and tensors need, and refuses every other, and every name but those of
``OrderedDict``, torch's storages and its function that rebuilds a tensor. PyTorch is not needed.
"""

from __future__ import annotations

import math
import os
import pickletools
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

Arrays = dict[str, Any]

_BFLOAT16 = "bfloat16"  # the upper half of a float32
_SAVED = "?bBhHiIlLqQefdF"  # the dtypes of NumPy that a safetensors file can hold
_STORAGES = {
    "BoolStorage": "?", "ByteStorage": "u1", "CharStorage": "i1", "ShortStorage": "i2", "IntStorage": "i4", "LongStorage": "i8",
    "HalfStorage": "f2", "BFloat16Storage": _BFLOAT16, "FloatStorage": "f4", "DoubleStorage": "f8",
}  # fmt: skip


def load(path: str | os.PathLike[str]) -> Arrays:
    """The arrays of a file by name: safetensors, npz, or a state dict that ``torch.save`` wrote.

    bfloat16 becomes float32. Of a checkpoint with more in it, the entry "state_dict" or "model" is taken.

    Raises:
        ValueError: the file is of another kind, damaged, or holds what is neither a container nor a tensor.
        OSError: it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(9)
        if start[:4] == b"PK\3\4":
            return _load_zip(path, file)
        file.seek(0)
        if start[:2] == b"\x80\x02":
            return _named(path, lambda: _read_legacy(file))
    if start[8:9] == b"{":
        return _named(path, lambda: _load_safetensors(path))
    raise ValueError(f"{path}: the file must be of safetensors, npz, or written by torch.save")


def save(path: str | os.PathLike[str], arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file; it takes the place of an older one when it is complete.

    Raises:
        ValueError: an entry is no array of numbers that such a file can hold; it is named.
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(path)
    contiguous = {name: to_array(name, array) for name, array in arrays.items()}
    for name, array in contiguous.items():
        if array.dtype.char not in _SAVED:
            raise ValueError(f"{name} must be an array of numbers of up to 64 bits, got {array.dtype}")
    if path.exists() and not path.is_file():  # safetensors would put a file in the place of a device
        raise OSError(f"{path} cannot be written: this is no ordinary file")
    with replacing(path) as place:
        try:
            save_file(contiguous, place, dict(metadata) if metadata else None)
        except SafetensorError as error:  # which is what a full disk is there
            raise OSError(f"{path} cannot be written: {error}") from None


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Where to write a file: what was at ``path`` is replaced when all is written, and left alone when that fails."""
    path = Path(path).resolve()  # what a link leads to is replaced, not the link
    if path.exists() and not path.is_file():  # a device or a pipe stays what it is
        yield path
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def to_array(name: str, value: Any) -> Any:
    """An entry as a C-contiguous array; of a tensor of PyTorch its values alone, bfloat16 as float32.

    >>> to_array("fc.bias", [[1.0], [1.0, 2.0]])
    Traceback (most recent call last):
    ValueError: fc.bias must be an array: setting an array element with a sequence...
    """
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
        return np.asarray(value, order="C")
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array: {error}") from None


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """What :func:`save` was given as metadata."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _named(path: Path, read: Callable[[], Arrays]) -> Arrays:
    """Whatever a damaged file makes go wrong is an error of the file."""
    try:
        return read()
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: {error or type(error).__name__}") from error


def _load_safetensors(path: Path) -> Arrays:
    import safetensors

    found: Arrays = {}
    with safetensors.safe_open(path, framework="numpy") as file:
        half = [name for name in file.keys() if file.get_slice(name).get_dtype() == "BF16"]
        for name in file.keys():
            if name not in half:
                found[name] = file.get_tensor(name)
    if half:
        for name, tensor in safetensors.deserialize(path.read_bytes()):
            if name in half:
                found[name] = _widened(np.frombuffer(tensor["data"], "<u2")).reshape(tensor["shape"])
    return found


def _widened(bits: Any) -> Any:
    """bfloat16 as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _load_zip(path: Path, file: IO[bytes]) -> Arrays:
    def read() -> Arrays:
        with zipfile.ZipFile(file) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) == 1:
                return _read_torch(archive, pickles[0])
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    return _named(path, read)


# What stands for things of torch while a pickle is being read.


@dataclass(frozen=True)
class _Name:
    """A function or class."""

    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_ORDERED_DICT = _Name("collections", "OrderedDict")
_REBUILD_TENSOR = _Name("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = _Name("torch._utils", "_rebuild_parameter")
_KNOWN = {_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER, *(_Name("torch", name) for name in _STORAGES)}

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
}  # fmt: skip
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME"}


class _Reader:
    """Reads one pickle. Source of the opcodes' meaning: the documentation in Python's ``pickletools``."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def read(self, file: IO[bytes] | bytes) -> Any:
        argument: Any
        for opcode, argument, _ in pickletools.genops(file):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _TUPLES:
                count = _TUPLES[name]
                self.stack[-count:] = [tuple(self.stack[-count:])]
            elif name in ("BINPUT", "LONG_BINPUT"):
                self.memo[argument] = self.stack[-1]
            elif name == "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[argument])
            elif name not in _IGNORED:
                method = getattr(self, f"_{name.lower()}", None)
                if method is None:
                    raise ValueError(f"refused: the pickle uses {name}, which no state dict needs")
                method(argument)
        raise ValueError("the pickle has no end")

    def _marked(self) -> list[Any]:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def _mark(self, argument: Any) -> None:
        self.marks.append(len(self.stack))

    def _tuple(self, argument: Any) -> None:
        self.stack.append(tuple(self._marked()))

    def _append(self, argument: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, argument: Any) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("refused: the pickle appends to what is no list")
        self.stack[-1].extend(items)

    def _setitem(self, argument: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def _setitems(self, argument: Any) -> None:
        self._update(self._marked())

    def _update(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise ValueError("refused: the pickle puts items into what is no dict")
        self.stack[-1].update(zip(items[::2], items[1::2]))

    def _global(self, argument: Any) -> None:
        self._find(*argument.split(" ", 1))

    def _stack_global(self, argument: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._find(module, name)

    def _find(self, module: Any, name: Any) -> None:
        found = _Name(module, name)
        if found not in _KNOWN:
            raise ValueError(f"refused: the pickle asks for {module}.{name}, which no state dict needs")
        self.stack.append(found)

    def _reduce(self, argument: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if function == _ORDERED_DICT and arguments == ():
            self.stack.append({})
        elif function == _REBUILD_TENSOR:
            storage, offset, shape, strides = arguments[:4]
            numbers = (offset, *shape, *strides)
            if type(storage) is not _Storage or not all(type(n) is int and n >= 0 for n in numbers) or len(shape) != len(strides):
                raise ValueError("refused: the pickle describes no tensor")
            self.stack.append(_Tensor(storage, offset, shape, strides))
        elif function == _REBUILD_PARAMETER and type(arguments[0]) is _Tensor:
            self.stack.append(arguments[0])
        else:
            raise ValueError("refused: the pickle calls what no state dict needs")

    def _build(self, argument: Any) -> None:
        # The attributes of an OrderedDict: versions of modules, which do not matter here.
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise ValueError("refused: the pickle sets attributes")

    def _binpersid(self, argument: Any) -> None:
        # ("storage", type, key, device, count), and a view in files of old.
        kind, storage, key, _, count, *view = self.stack.pop()
        if kind != "storage" or type(storage) is not _Name or storage.name not in _STORAGES or not isinstance(key, str):
            raise ValueError("refused: the pickle refers to what is no storage")
        if any(part is not None for part in view):
            raise ValueError("refused: a storage that is a view of another")
        found = _Storage(key, _STORAGES[storage.name], count)
        if self.storages.setdefault(key, found) != found:
            raise ValueError(f"storage {key} is described in two ways")
        self.stack.append(found)


def _state_dict(content: Any, storage: Callable[[_Storage], Any]) -> Arrays:
    """The tensors in a dict, or in the dict that is its entry "state_dict" or "model", as arrays."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError(f"the file must hold a dict of tensors, got a {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or type(value) is not _Tensor:
            raise ValueError(f"the file must hold a dict of tensors, got a {type(value).__name__} under {name!r}")
    return {name: _array(tensor, storage(tensor.storage)) for name, tensor in content.items()}


def _array(tensor: _Tensor, flat: Any) -> Any:
    count = math.prod(tensor.shape)
    if not count:
        return np.zeros(tensor.shape, flat.dtype)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides))
    if count > flat.size or last >= flat.size:
        raise ValueError(f"a tensor of shape {tensor.shape} reaches beyond its {flat.size} stored elements")
    strides = [s * flat.itemsize for s in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides).copy()


def _elements(data: bytes, dtype: str, order: str) -> Any:
    return _widened(np.frombuffer(data, f"{order}u2")) if dtype == _BFLOAT16 else np.frombuffer(data, f"{order}{dtype}").astype(dtype, copy=False)


def _read_torch(archive: zipfile.ZipFile, name: str) -> Arrays:
    """A file as ``torch.save`` writes it today: an archive of a pickle and the storages."""
    root = name.removesuffix("data.pkl")
    members = set(archive.namelist())

    def stored(member: str) -> bytes:
        # torch compresses nothing; what is compressed may be of any size.
        if archive.getinfo(member).compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"refused: {member} is compressed")
        return archive.read(member)

    order = ">" if f"{root}byteorder" in members and stored(f"{root}byteorder") == b"big" else "<"
    read: dict[str, Any] = {}

    def storage(of: _Storage) -> Any:
        if of.key not in read:
            read[of.key] = _elements(stored(f"{root}data/{of.key}"), of.dtype, order)
        return read[of.key]

    return _state_dict(_Reader().read(stored(name)), storage)


def _read_legacy(file: IO[bytes]) -> Arrays:
    """A file as torch wrote it before 1.6: pickles of a number, a version, the system, the content and the keys; storages."""
    if _Reader().read(file) != 0x1950A86A20F9469CFC6C or _Reader().read(file) != 1001:
        raise ValueError("the file must be of safetensors, npz, or written by torch.save")
    order = "<" if _Reader().read(file).get("little_endian", True) else ">"
    reader = _Reader()
    content = reader.read(file)
    read: dict[str, Any] = {}
    for key in _Reader().read(file):
        count = int.from_bytes(file.read(8), "little" if order == "<" else "big")
        of = reader.storages[key]
        width = 2 if of.dtype == _BFLOAT16 else np.dtype(of.dtype).itemsize
        if count != of.count:
            raise ValueError(f"storage {key} must have {of.count} elements, got {count}")
        read[key] = _elements(file.read(count * width), of.dtype, order)
    return _state_dict(content, lambda of: read[of.key])
