"""``python -m asv_bench.optimizers [NAME...]``: a step of the optimizers beside PyTorch's, in one process, in turns, best of many.

PyTorch has three ways: its default (on a CPU a loop over parameters), ``foreach=True``, and ``fused=True``, where there is one.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from asv_bench.benchmarks.optim import OPTIONS, SHAPES, drawn
from asv_bench.beside import best

THEIRS = {"sgd": "SGD", "rmsprop": "RMSprop", "adamw": "AdamW", "nadam": "NAdam", "radam": "RAdam"}
FUSED = ("sgd", "adagrad", "adam", "adamw")


def table(name: str, threads: int, seconds: float) -> None:
    import torch

    from fastops import optim

    for label in SHAPES:
        params, grads = drawn(label, 0), drawn(label, 1)
        opt = getattr(optim, name)(**OPTIONS[name], lr=1e-6)
        state = opt.init(params)
        calls: dict[str, Any] = {
            "in place": partial(opt.update, params, grads, state, inplace=True),
            "new arrays": partial(opt.update, params, grads, state),
        }
        theirs = getattr(torch.optim, THEIRS.get(name, name.capitalize()), None)
        for way in ({}, {"foreach": True}, {"fused": True}) if theirs else ():
            if "fused" in way and name not in FUSED:
                continue
            tensors = [torch.tensor(value, requires_grad=True) for value in params.values()]
            for tensor, grad in zip(tensors, grads.values()):
                tensor.grad = torch.tensor(grad)
            calls[f"torch {next(iter(way), 'default')}"] = theirs(tensors, **OPTIONS[name], lr=1e-6, **way).step
        times = best(list(calls.values()), seconds, threads)
        print(f"{name:9} {label:17}" + "".join(f"  {key} {time * 1e3:.3f}" for key, time in zip(calls, times)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m asv_bench.optimizers", description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", choices=[*OPTIONS, []], metavar="NAME", help=f"{', '.join(OPTIONS)} (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each row")
    options = parser.parse_args()
    import torch

    import fastops

    fastops.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    print(f"{options.threads} thread(s), float32, milliseconds a step")
    for name in options.names or OPTIONS:
        table(name, options.threads, options.seconds)


if __name__ == "__main__":
    main()
