"""What is learnt: for each kind of network where batches come from, what the loss is, and how the result is judged."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

import fastops.functional as F
from fastops.cli.train.augment import augmented
from fastops.cli.train.data import Pictures

Array = np.ndarray[Any, Any]
Batch = tuple[tuple[Array, ...], Any]


class Task(ABC):
    """A network's work.

    Attributes:
        name: what the data is called.
        metric: what the result is judged by; the larger the better, but for "loss".
        samples: how many an epoch goes through.
        facts: what else a report should say.
        checksum: of the data, so that a run is not continued on other data.
    """

    name: str
    metric: str = "accuracy"
    samples: int
    checksum: int
    facts: dict[str, float]

    @abstractmethod
    def batch(self, indices: Array, rng: np.random.Generator) -> Batch:
        """Inputs and targets of some samples to train on, augmented."""

    @abstractmethod
    def tests(self, size: int) -> Iterator[Batch]:
        """The test set, in batches."""

    def loss(self, y: Any, target: Any) -> Any:
        """Of the network's output; it is differentiated."""
        return F.cross_entropy(y, target)

    @abstractmethod
    def counts(self, y: Array, target: Any, training: bool) -> Array:
        """What is added up over the batches to judge them."""

    def score(self, counts: Array) -> float:
        """The metric, from the sum of the counts."""
        return float(counts[0] / max(counts[1], 1))


def _normalised(train: Array, test: Array) -> tuple[Array, Array]:
    """Mean 0 and deviation 1 in each channel, by the statistics of the training set."""
    mean = train.mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64).astype(np.float32)
    std = np.maximum(train.std(axis=(0, 2, 3), keepdims=True, dtype=np.float64), 1e-3).astype(np.float32)
    return (train - mean) / std, (test - mean) / std


class Classification(Task):
    """Pictures, or their rows as a sequence, and the class of each."""

    def __init__(self, pictures: Pictures, train: Array, test: Array, augment: Collection[str], rows: bool = False) -> None:
        self.name = pictures.name
        self.samples = len(train)
        self.checksum = pictures.checksum()
        self.facts = {"classes": len(pictures.classes), "test_samples": len(test)}
        self._train, self._test = _normalised(train, test)
        self._labels, self._test_labels = pictures.train_labels, pictures.test_labels
        self._augment = augment
        self._rows = rows

    def _inputs(self, images: Array) -> tuple[Array, ...]:
        if not self._rows:
            return (images,)
        count, channels, height, width = images.shape  # a row with all its channels is a step
        return (np.ascontiguousarray(images.transpose(0, 2, 1, 3)).reshape(count, height, channels * width),)

    def batch(self, indices: Array, rng: np.random.Generator) -> Batch:
        return self._inputs(augmented(self._train[indices], self._augment, rng)), self._labels[indices]

    def tests(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self._test), size):
            yield self._inputs(self._test[start : start + size]), self._test_labels[start : start + size]

    def counts(self, y: Array, target: Array, training: bool) -> Array:
        return np.array([(y.argmax(axis=1) == target).sum(), len(target)], np.float64)


class Segmentation(Task):
    """Digits pasted on photographs: which pixels are of a digit.

    The training set is cut out of the left two thirds of each photograph, the test set out of the rest, with digits that
    training does not see.
    """

    metric = "mean_iou"

    def __init__(self, photographs: list[Array], digits: Pictures, size: int = 64, train: int = 800, test: int = 200) -> None:
        self.name = "digits on photographs"
        self.samples = train
        self.facts = {"test_samples": test}
        cuts = [photograph.shape[2] * 2 // 3 for photograph in photographs]
        left = [photograph[..., :cut] for photograph, cut in zip(photographs, cuts)]
        right = [photograph[..., cut:] for photograph, cut in zip(photographs, cuts)]
        images, self._masks = _collage(left, digits.train[:, 0], size, train, np.random.default_rng(0))
        test_images, self._test_masks = _collage(right, digits.test[:, 0], size, test, np.random.default_rng(1))
        self.checksum = zlib.crc32(images.tobytes())
        self._images, self._test_images = _normalised(images, test_images)

    def batch(self, indices: Array, rng: np.random.Generator) -> Batch:
        images, masks = self._images[indices], self._masks[indices]
        if rng.random() < 0.5:
            images, masks = np.ascontiguousarray(images[..., ::-1]), np.ascontiguousarray(masks[..., ::-1])
        return (images,), masks

    def tests(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self._test_images), size):
            yield (self._test_images[start : start + size],), self._test_masks[start : start + size]

    def counts(self, y: Array, target: Array, training: bool) -> Array:
        found = y.argmax(axis=1)
        both = [((found == k) & (target == k)).sum() for k in range(2)]
        either = [((found == k) | (target == k)).sum() for k in range(2)]
        return np.array([*both, *either], np.float64)

    def score(self, counts: Array) -> float:
        return float(np.mean(counts[:2] / np.maximum(counts[2:], 1)))


def _collage(photographs: list[Array], digits: Array, size: int, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Cuttings of photographs (3, H, W) with one to three digits on each, and the mask of the digits' pixels."""
    images = np.empty((count, 3, size, size), np.float32)
    masks = np.zeros((count, size, size), np.int64)
    for image, mask in zip(images, masks):
        photograph = photographs[rng.integers(len(photographs))]
        height, width = photograph.shape[1:]
        top, left = rng.integers(height - size), rng.integers(width - size)
        image[:] = photograph[:, top : top + size, left : left + size]
        for _ in range(rng.integers(1, 4)):
            extent = int(rng.integers(size // 4, size // 2))
            digit = digits[rng.integers(len(digits))]
            ink = F.interpolate(digit[None, None], size=(extent, extent), mode="bilinear", antialias=extent < digit.shape[0])[0, 0]
            y, x = rng.integers(0, size - extent, 2)
            place = image[:, y : y + extent, x : x + extent]
            colour = rng.random(3).astype(np.float32)
            while abs(colour - place.mean(axis=(1, 2))).mean() < 0.3:  # nobody could see it
                colour = rng.random(3).astype(np.float32)
            place += ink * (colour[:, None, None] - place)
            mask[y : y + extent, x : x + extent] |= ink > 0.5
    return images, masks


class Graph(Task):
    """The members of a club, of whom a few are labelled: in each class those who know most others."""

    def __init__(self, name: str, edges: Array, labels: Array, labelled: int = 2) -> None:
        self.name = name
        self.samples = 1
        count = len(labels)
        degree = np.bincount(edges[0], minlength=count)
        known = [np.flatnonzero(labels == k)[np.argsort(-degree[labels == k], kind="stable")[:labelled]] for k in np.unique(labels)]
        self._known = np.sort(np.concatenate(known))
        self._others = np.setdiff1d(np.arange(count), self._known)
        self._inputs = (np.eye(count, dtype=np.float32), edges)
        self._labels = labels
        self.checksum = zlib.crc32(edges.tobytes())
        self.facts = {"labelled": len(self._known), "test_samples": len(self._others)}

    def batch(self, indices: Array, rng: np.random.Generator) -> Batch:
        return self._inputs, self._known

    def tests(self, size: int) -> Iterator[Batch]:
        yield self._inputs, self._others

    def loss(self, y: Any, target: Any) -> Any:
        return F.cross_entropy(y[target], self._labels[target])

    def counts(self, y: Array, target: Any, training: bool) -> Array:
        return np.array([(y[target].argmax(axis=1) == self._labels[target]).sum(), len(target)], np.float64)


def bigram_entropy(symbols: Array) -> float:
    """How much is uncertain about a symbol when the one before it is known, in nats: what counting pairs can reach.

    >>> bigram_entropy(np.array([0, 1] * 50)), round(bigram_entropy(np.array([0, 0, 1, 1] * 50 + [0])), 3)
    (0.0, 0.693)
    """
    pairs = np.zeros((symbols.max() + 1,) * 2)
    np.add.at(pairs, (symbols[:-1], symbols[1:]), 1)
    of_pair = pairs[pairs > 0] / pairs.sum()
    of_first = pairs.sum(axis=1)
    of_first = of_first[of_first > 0] / pairs.sum()
    return float(-(of_pair * np.log(of_pair)).sum() + (of_first * np.log(of_first)).sum())


class Text(Task):
    """The next byte of a text, its last tenth held out. The loss is in nats a byte."""

    metric = "loss"

    def __init__(self, name: str, content: bytes, length: int = 64) -> None:
        self.name = name
        raw = np.frombuffer(content, np.uint8)
        self.alphabet, symbols = np.unique(raw, return_inverse=True)
        symbols = symbols.astype(np.int64)
        held = max(length + 1, len(symbols) // 10)
        self._train, self._test = symbols[:-held], symbols[-held:]
        self._length = length
        self.samples = (len(self._train) - 1) // length
        if self.samples < 1:
            raise ValueError(f"a text of {len(content)} bytes is too short for pieces of {length}")
        self.checksum = zlib.crc32(content)
        self.facts = {"symbols": len(self.alphabet), "bytes": len(content), "bigram_entropy": bigram_entropy(symbols)}

    def batch(self, indices: Array, rng: np.random.Generator) -> Batch:
        # The pieces begin somewhere else each time, or the network would learn where they begin.
        starts = indices * self._length + rng.integers(0, self._length, len(indices))
        return self._pieces(self._train, np.minimum(starts, len(self._train) - self._length - 1))

    def _pieces(self, symbols: Array, starts: Array) -> Batch:
        places = starts[:, None] + np.arange(self._length)
        return (symbols[places],), symbols[places + 1]

    def tests(self, size: int) -> Iterator[Batch]:
        starts = np.arange(0, len(self._test) - self._length, self._length)
        for i in range(0, len(starts), size):
            yield self._pieces(self._test, starts[i : i + size])

    def loss(self, y: Any, target: Any) -> Any:
        return F.cross_entropy(y.reshape(-1, y.shape[-1]), target.reshape(-1))

    def counts(self, y: Array, target: Any, training: bool) -> Array:
        if training:  # the loss that was descended is it
            return np.array([0.0, target.size])
        return np.array([float(self.loss(y, target)) * target.size, target.size])
