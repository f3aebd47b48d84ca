"""``python -m asv_bench.networks NETWORK...``: whole networks beside PyTorch and ONNX Runtime, in one process, in turns.

Inference (``prepare``d, batch normalisation folded) beside PyTorch as it comes (eval, no_grad), and with --variants also
beside its channels_last format and convolutions fused by torch.fx; with --train a training step: forward, cross entropy,
gradients of all parameters, and plain gradient descent. --memory measures the peak memory of a training step instead, each
side in a process of its own (Linux). Ratios are the other's time over fastops': above 1, fastops is faster.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[], Any]


class Setting:
    """A network with weights, a batch of noise and labels."""

    def __init__(self, name: str, batch: int, size: int) -> None:
        from fastops import models

        self.name = name
        self.model = getattr(models, name)()
        self.params, self.buffers = self.model.init(rng=0)
        rng = np.random.default_rng(1)
        self.x = rng.standard_normal((batch, *self.model.inputs[0][1][:1], size, size)).astype(np.float32)
        self.labels = rng.integers(0, 10, batch)

    def predict(self) -> Call:
        predict = self.model.prepare(self.params, self.buffers)
        return lambda: predict(self.x)

    def plain(self) -> Call:
        return lambda: self.model.apply(self.params, self.buffers, self.x)[0]

    def train(self) -> Call:
        import fastops
        from fastops import optim

        params = {name: array.copy() for name, array in self.params.items()}
        optimizer = optim.sgd(lr=1e-3)
        kept: dict[str, Any] = {"params": params, "state": optimizer.init(params), "buffers": self.buffers}

        def loss(params: Any) -> Any:
            y, buffers = self.model.apply(params, kept["buffers"], self.x, training=True, rng=0)
            return fastops.cross_entropy(y, self.labels), buffers

        step = fastops.value_and_grad(loss, has_aux=True)

        def run() -> None:
            (_, kept["buffers"]), grads = step(kept["params"])
            kept["params"], kept["state"] = optimizer.update(kept["params"], grads, kept["state"], inplace=True)

        return run

    def torch(self, variant: str = "eager") -> Call:
        import torch

        from asv_bench.torch_networks import module

        network = module(self.model, self.params, self.buffers).eval()
        x = torch.from_numpy(self.x)
        if variant == "channels_last":
            network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        elif variant == "folded":
            network = _folded(network)

        def run() -> Any:
            with torch.no_grad():
                return network(x)

        return run

    def torch_train(self, variant: str = "eager") -> Call:
        import torch

        from asv_bench.torch_networks import module

        network = module(self.model, self.params, self.buffers).train()
        x, labels = torch.from_numpy(self.x), torch.from_numpy(self.labels)
        if variant == "channels_last":
            network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

        def run() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x), labels).backward()
            optimizer.step()

        return run

    def onnxruntime(self, threads: int) -> Call:
        import onnxruntime
        import torch

        from asv_bench.torch_networks import module

        network = module(self.model, self.params, self.buffers).eval()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "network.onnx")
            torch.onnx.export(network, (torch.from_numpy(self.x),), path, dynamo=False)
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: self.x}
        return lambda: session.run(None, feed)[0]


def best(calls: list[Call], turns: int, seconds: float) -> list[float]:
    """The shortest time of each. Sides take turns of so many seconds; before each, the other's threads, which spin for a while, come to rest."""
    for call in calls:
        call()
    times = [np.inf] * len(calls)
    for _ in range(turns):
        for i, call in enumerate(calls):
            time.sleep(0.25)
            call()
            begun = end = time.perf_counter()
            while end - begun < seconds:
                start = time.perf_counter()
                call()
                end = time.perf_counter()
                times[i] = min(times[i], end - start)
    return times


def _folded(network: Any) -> Any:
    """Batch normalisation folded into the convolutions by torch.fx."""
    import torch
    from torch.fx.experimental import optimization

    return optimization.fuse(torch.fx.symbolic_trace(network), inplace=False).eval()


def compare(setting: Setting, options: argparse.Namespace) -> None:
    mine: dict[str, Call] = {"fastops": setting.train() if options.train else setting.predict()}
    others: dict[str, Call] = {}
    if "torch" in options.against:
        make = setting.torch_train if options.train else setting.torch
        others["torch"] = make()
        if options.variants:
            others["torch channels_last"] = make("channels_last")
            if not options.train:
                others["torch folded"] = make("folded")
    if "onnxruntime" in options.against and not options.train:
        others["onnxruntime"] = setting.onnxruntime(options.threads)
    if not options.train:
        y = mine["fastops"]()
        for name, call in others.items():
            error = np.abs(np.asarray(call()) - y).max() / np.abs(y).max()
            assert error < 1e-3, f"{name}: another result, relative error {error:.1e}"
    times = best([*mine.values(), *others.values()], options.turns, options.seconds)
    kind = "training step" if options.train else "inference"
    line = f"{setting.name} batch {len(setting.x)}, {setting.x.shape[-1]}, {options.threads} thread(s), {kind}: {times[0] * 1e3:.1f} ms"
    print(line + "".join(f"; {name} {t / times[0]:.2f}" for name, t in zip(others, times[1:])), flush=True)


def memory(options: argparse.Namespace) -> None:
    """Peak memory of a training step, each side in a fresh process that loads nothing of the other."""
    for name in options.networks:
        found = {}
        for side in ("fastops", "torch"):
            command = [sys.executable, "-m", "asv_bench.networks", name, "--memory-of", side]
            command += ["--batch", str(options.batch), "--size", str(options.size), "--threads", str(options.threads)]
            found[side] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        print(f"{name} batch {options.batch}, training step: peak memory of the process, and what of it came after the weights")
        for side, (peak, grown) in found.items():
            print(f"  {side:8} {peak} MiB, {grown} MiB")


def _status(entry: str) -> int:
    """Of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(entry)).split()[1]) // 1024


def memory_of(options: argparse.Namespace) -> None:
    setting = Setting(options.networks[0], options.batch, options.size)
    step = setting.train() if options.memory_of == "fastops" else setting.torch_train()
    before = _status("VmRSS")
    step()  # fills what is kept, and loads what is loaded late
    Path("/proc/self/clear_refs").write_text("5")
    step()
    peak = _status("VmHWM")
    print(peak, peak - before)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m asv_bench.networks", description=__doc__.partition("\n\n")[0])
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--against", default="torch", type=lambda text: text.split(","), metavar="torch,onnxruntime")
    parser.add_argument("--variants", action="store_true", help="PyTorch in its faster ways too")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-of", choices=("fastops", "torch"), help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn, at least one call")
    options = parser.parse_args()
    import fastops

    fastops.set_num_threads(options.threads)
    if options.memory:
        memory(options)
        return
    if "torch" in options.against or options.memory_of == "torch":
        import torch

        torch.set_num_threads(options.threads)
    if options.memory_of:
        memory_of(options)
        return
    for name in options.networks:
        compare(Setting(name, options.batch, options.size), options)


if __name__ == "__main__":
    main()
