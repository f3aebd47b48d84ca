"""What an installed fastops must do on any supported Python: every convolution strategy, forward and backward."""

import subprocess
import sys

import numpy as np

import fastops
from fastops.cli._layers import DIRECTIONS, Layer, largest_error
from fastops.cli.shapes import SHAPES
from fastops.ops.conv.strategies import STRATEGIES

# Between them every strategy accepts one.
LAYERS = ("lenet5.c3", "resnet18.layer4", "mobilenet_v2.d15", "mobilenet_v2.e8")


def main() -> None:
    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}, fastops {fastops.__version__} at {fastops.__file__}")
    reached = set()
    for name in LAYERS:
        layer = Layer(SHAPES[name])
        for direction in DIRECTIONS:
            expected, channels = layer.reference(direction)
            for strategy, offer in layer.offers(direction, 1).items():
                if offer.refused is None:
                    error = largest_error(layer.call(direction, strategy)(), expected, channels, direction)
                    print(f"{name:<20} {direction:<12} {strategy:<10} {error:.1e}")
                    assert error < 1e-4, "too far from the naive result in float64"
                    reached.add(strategy)
    missing = {strategy.name for strategy in STRATEGIES} - reached
    assert not missing, f"no layer here reaches {missing}"
    subprocess.run([sys.executable, "-m", "fastops", "info"], check=True)


if __name__ == "__main__":
    main()
