"""Data sets: what ships with well-kept packages, and what the user names. Nothing is downloaded.

The test set is fixed by a rule that knows neither the run's seed nor the network: the files say which it is (MNIST's, Keras's
npz, folders ``train`` and ``test``), or it is every class's fifth, drawn with seed 0.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import fastops.functional as F
from fastops.cli._options import Refused as Refused
from fastops.cli._pictures import decoded

Array = np.ndarray[Any, Any]

TEST_SHARE = 0.2
TEXT_BYTES = 100_000
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def needed(module: str, package: str, why: str) -> ModuleType:
    """An optional module, or how to get it."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise Refused(f'{why} takes {package} (pip install "fastops[train]")') from None


@dataclass(frozen=True)
class Pictures:
    """Pictures with a class each.

    Attributes:
        name: what the data is called.
        train, test: float32 in [0, 1], (N, C, H, W).
        train_labels, test_labels: (N,).
        classes: names of the classes.
        flips: whether a mirrored picture is one of the same class.
    """

    name: str
    train: Array
    train_labels: Array
    test: Array
    test_labels: Array
    classes: tuple[str, ...]
    flips: bool = False

    def __post_init__(self) -> None:
        if min(len(self.train), len(self.test)) == 0:
            raise Refused(f"{self.name}: {len(self.train)} pictures to train on and {len(self.test)} to test are too few")
        if len(self.classes) < 2:
            raise Refused(f"{self.name}: there must be two classes at least, got {len(self.classes)}")

    def checksum(self) -> int:
        return zlib.crc32(self.train.tobytes()) ^ zlib.crc32(np.asarray(self.train_labels, np.int64).tobytes())


def split(labels: Array, share: float = TEST_SHARE) -> tuple[Array, Array]:
    """Indices to train on and to test: of each class the same share is held out.

    >>> train, test = split(np.repeat([0, 1], 10))
    >>> len(train), np.bincount(np.repeat([0, 1], 10)[test]).tolist()
    (16, [2, 2])
    """
    rng = np.random.default_rng(0)
    held: list[int] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held += members[: round(share * len(members))].tolist()
    test = np.sort(np.array(held, np.int64))
    return np.setdiff1d(np.arange(len(labels)), test), test


def _halves(name: str, images: Array, labels: Array, classes: tuple[str, ...], flips: bool = False) -> Pictures:
    train, test = split(labels)
    return Pictures(name, images[train], labels[train], images[test], labels[test], classes, flips)


def resized(images: Array, size: tuple[int, int]) -> Array:
    """Pictures (N, C, H, W) at another size; a frame of up to four pixels is added rather than the picture stretched."""
    height, width = (wanted - given for wanted, given in zip(size, images.shape[2:]))
    if height == width == 0:
        return images
    if 0 <= height <= 8 and 0 <= width <= 8 and height % 2 == width % 2 == 0 and images.shape[2] > 16:
        return F.pad(images, (width // 2, width // 2, height // 2, height // 2))
    return F.interpolate(images, size=size, mode="bilinear", antialias=height < 0 or width < 0)


def coloured(images: Array, channels: int) -> Array:
    """Pictures with one channel or three."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return np.repeat(images, channels, axis=1)
    if channels == 1:
        return images.mean(axis=1, keepdims=True, dtype=np.float32)
    raise Refused(f"pictures of {images.shape[1]} channels do not fit a network for {channels}")


def digits(size: int | None = 28) -> Pictures:
    """scikit-learn's 1797 handwritten digits, 8x8, resized; None leaves them as they are."""
    given = needed("sklearn.datasets", "scikit-learn", "the digits").load_digits()
    images = (given.images[:, None] / 16).astype(np.float32)
    if size is not None:
        images = F.interpolate(images, size=(size, size), mode="bilinear")
    return _halves("digits", images, given.target.astype(np.int64), tuple("0123456789"))


def photographs() -> list[Array]:
    """scikit-learn's two photographs, float32 in [0, 1], (3, H, W)."""
    datasets = needed("sklearn.datasets", "scikit-learn", "the photographs")
    needed("PIL", "pillow", "reading photographs")
    return [np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / 255 for image in datasets.load_sample_images().images]


def karate_club() -> tuple[Array, Array]:
    """Zachary's karate club from networkx: edges in both directions (2, E), and the side that each member took (34,)."""
    graph = needed("networkx", "networkx", "the karate club").karate_club_graph()
    edges = np.array(graph.edges, np.int64)
    labels = np.array([graph.nodes[node]["club"] == "Officer" for node in sorted(graph.nodes)], np.int64)
    return np.concatenate([edges, edges[:, ::-1]]).T.copy(), labels


def text(path: str | None) -> tuple[str, bytes]:
    """A text file; by default the first 100 kB of the language reference that comes with Python, as its ``help`` shows it."""
    if path is None:
        from pydoc_data.topics import topics

        found = "\n".join(topics[name] for name in sorted(topics)).encode()
        return "Python's help topics", found[:TEXT_BYTES]
    content = _bytes(Path(path))
    if len(content) < 2_000:
        raise Refused(f"--data {path}: a text of {len(content)} bytes is too short to learn from")
    if b"\0" in content:
        raise Refused(f"--data {path}: this is no text file")
    return Path(path).name, content


def pictures(path: str, size: tuple[int, int]) -> Pictures:
    """What ``--data`` names: a folder of pictures by class, IDX files as of MNIST, or an npz file."""
    place = Path(path)
    if not place.exists():
        raise Refused(f"--data {path}: there is no such file or folder")
    if place.is_dir():
        return _idx_folder(place) if _idx_images(place) else _folder(place, size)
    if place.suffix == ".npz":
        return _npz(place)
    return _idx_file(place)


# ---- folders of pictures


def _folder(place: Path, size: tuple[int, int]) -> Pictures:
    needed("PIL", "pillow", "reading pictures")
    for train, test in (("train", "test"), ("train", "val")):
        if (place / train).is_dir() and (place / test).is_dir():
            classes = _classes(place / train)
            unknown = set(_classes(place / test)) - set(classes)
            if unknown:
                raise Refused(f"--data {place}: classes in {test} that are not in {train}: {', '.join(sorted(unknown))}")
            return Pictures(place.name, *_read_classes(place / train, classes, size), *_read_classes(place / test, classes, size), classes, True)
    classes = _classes(place)
    return _halves(place.name, *_read_classes(place, classes, size), classes, True)


def _classes(place: Path) -> tuple[str, ...]:
    found = sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise Refused(f"--data {place}: the folder must hold a folder of pictures for each class, or IDX files as of MNIST")
    return tuple(found)


def _read_classes(place: Path, classes: tuple[str, ...], size: tuple[int, int]) -> tuple[Array, Array]:
    images, labels = [], []
    for label, name in enumerate(classes):
        if not (place / name).is_dir():
            continue
        for path in sorted((place / name).iterdir()):
            if path.suffix.lower() in ENDINGS:
                images.append(_read_picture(path, size))
                labels.append(label)
    if not images:
        raise Refused(f"--data {place}: no pictures in it (files ending in {', '.join(ENDINGS)})")
    return np.stack(images), np.array(labels, np.int64)


def _read_picture(path: Path, size: tuple[int, int]) -> Array:
    """Resized so that it covers ``size``, and its middle cut out."""
    try:
        image = decoded(path)
    except ValueError as error:
        raise Refused(f"--data: {path} cannot be read: {error}") from None
    height, width = image.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    large = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    whole = F.interpolate(np.ascontiguousarray(image.transpose(2, 0, 1))[None], size=large, mode="bilinear", antialias=True)[0]
    top, left = (large[0] - size[0]) // 2, (large[1] - size[1]) // 2
    return whole[:, top : top + size[0], left : left + size[1]]


# ---- arrays in files


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"--data {path}: cannot be read: {error}") from None


def _idx(path: Path) -> Array:
    """An IDX file: two zeros, the type, the number of axes, the extents as 32-bit big-endian numbers, the elements."""
    content = _bytes(path)
    kinds = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in kinds:
        raise Refused(f"--data {path}: this is neither an IDX file, an npz file nor a folder")
    axes, dtype = content[3], np.dtype(kinds[content[2]])
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", axes, 4)) if len(content) >= 4 + 4 * axes else ()
    start = 4 + 4 * axes
    if axes == 0 or len(shape) != axes or len(content) != start + int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise Refused(f"--data {path}: the IDX file is damaged: its length is not what its header says")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _idx_images(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_file() and "images" in path.name and "idx3" in path.name)


def _idx_pair(images: Path) -> tuple[Array, Array]:
    content = _idx(images)
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    for labels in (images.with_name(name), images.with_name(name.removesuffix(".gz")), images.with_name(f"{name}.gz")):
        if labels != images and labels.exists():
            return content, _idx(labels)
    raise Refused(f"--data {images}: there is no file of labels beside it ({name})")


def _idx_folder(place: Path) -> Pictures:
    files = _idx_images(place)
    train = next((path for path in files if path.name.startswith("train")), files[0])
    return _idx_file(train)


def _idx_file(path: Path) -> Pictures:
    images, labels = _idx_pair(path)
    test = [other for other in _idx_images(path.parent) if other.name.startswith(("t10k", "test"))]
    if path.name.startswith("train") and test:
        return _from_arrays(path.parent.name or path.name, images, labels, *_idx_pair(test[0]))
    return _from_arrays(path.name, images, labels)


def _npz(path: Path) -> Pictures:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged archive raises many things
        raise Refused(f"--data {path}: cannot be read: {error}") from None
    for names in (("x_train", "y_train", "x_test", "y_test"), ("x", "y"), ("images", "labels"), ("data", "target")):
        if all(name in arrays for name in names):
            return _from_arrays(path.name, *(arrays[name] for name in names))
    raise Refused(f"--data {path}: must hold x_train, y_train, x_test, y_test, or x and y; it has {', '.join(arrays) or 'nothing'}")


def _from_arrays(name: str, images: Array, labels: Array, test_images: Array | None = None, test_labels: Array | None = None) -> Pictures:
    known = np.unique(labels)
    classes = tuple(str(label) for label in known)
    images, numbers = _as_images(name, images), _as_labels(name, labels, known, len(images))
    # The training set's maximum decides about both: the same picture must come out the same.
    scale = _scale(images)
    images = np.multiply(images, scale, dtype=np.float32)
    if test_images is None or test_labels is None:
        return _halves(name, images, numbers, classes)
    test = np.multiply(_as_images(name, test_images), scale, dtype=np.float32)
    return Pictures(name, images, numbers, test, _as_labels(name, test_labels, known, len(test)), classes)


def _as_images(name: str, images: Array) -> Array:
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.dtype.kind not in "uif" or images.shape[1] not in (1, 3):
        raise Refused(f"{name}: pictures must be (N, H, W), (N, H, W, 3) or (N, 3, H, W), got {images.dtype} {images.shape}")
    if 0 in images.shape[2:]:
        raise Refused(f"{name}: pictures must have pixels, got shape {images.shape}")
    if not np.isfinite([images.min(initial=0), images.max(initial=0)]).all():
        raise Refused(f"{name}: pictures must be of finite numbers, got NaN or infinity")
    return images


def _scale(images: Array) -> np.float32:
    """What takes pictures to [0, 1]; one number, since 60000 pictures of MNIST in float64 would take 380 MB on the way."""
    largest = float(images.max(initial=0))
    return np.float32(1 / 255 if images.dtype.kind in "ui" and largest > 16 else 1 / largest if largest > 1 else 1)


def _as_labels(name: str, labels: Array, known: Array, count: int) -> Array:
    labels = labels.reshape(-1)
    if len(labels) != count:
        raise Refused(f"{name}: {count} pictures and {len(labels)} labels")
    if not np.isin(labels, known).all():
        raise Refused(f"{name}: there are labels in the test set that are not in the training set")
    return np.searchsorted(known, labels).astype(np.int64)
