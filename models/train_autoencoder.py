#!/usr/bin/env python3
"""Train an autoencoder of digits, without labels, and write it as ONNX.

    python models/train_autoencoder.py --data DIR

The encoder (784 -> 64, square, -> 32) is what runs on encrypted digits: `fhec compile --output code`
makes a plan of it alone. Its 32 numbers say enough of a digit for the decoder to draw it again, and
for transfer.py to tell which it is. DIR holds the four idx files of MNIST; see train.py.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from common import (
    HERE,
    IMAGE,
    checked_model,
    computed_with,
    load_mnist,
    parameters,
    pixels,
    run,
    sample_indices,
    session,
    write_golden,
)
from onnx import helper, numpy_helper
from torch import nn
from train import Square, fold_norms

NAME = "autoencoder"
CODE, DRAWN = "code", "drawn"
WIDTH = 32


def network():
    return [
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(784, 64)),
        ("bn1", nn.BatchNorm1d(64)),
        ("square1", Square()),
        ("encode", nn.Linear(64, WIDTH)),
        # Codes of variance 1, so that their scale is the same for whoever learns from them.
        ("bn2", nn.BatchNorm1d(WIDTH, affine=False)),
        ("decode", nn.Linear(WIDTH, 64)),
        ("relu", nn.ReLU()),
        ("draw", nn.Linear(64, 784)),
    ]


def train(images, seed, epochs, batch=256):
    """Train on the squared error of pixels and return the network in evaluation mode."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = nn.Sequential(*(layer for _, layer in network()))
    x = torch.from_numpy(pixels(images))
    steps = len(x) // batch
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, epochs=epochs, steps_per_epoch=steps
    )
    for epoch in range(epochs):
        start, total = time.time(), 0.0
        order = torch.randperm(len(x), generator=rng)
        for step in range(steps):
            digits = x[order[step * batch : (step + 1) * batch]]
            loss = F.mse_loss(net(digits), digits.flatten(1))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1:2}/{epochs}  loss {total / steps:.5f}  {time.time() - start:.1f} s")
    return net.eval()


def plain_norms(named):
    """Give normalizations without gain and offset the neutral ones."""
    for _, layer in named:
        if isinstance(layer, nn.BatchNorm1d) and not layer.affine:
            layer.weight = nn.Parameter(torch.ones(layer.num_features))
            layer.bias = nn.Parameter(torch.zeros(layer.num_features))
    return named


def to_onnx(named):
    """The whole network; the codes are a tensor inside it."""
    nodes, weights, tensor = [], [], IMAGE
    for name, layer in named:
        out = {"encode": CODE, "draw": DRAWN}.get(name, f"{name}_out")
        if isinstance(layer, nn.Flatten):
            nodes.append(helper.make_node("Flatten", [tensor], [out], name=name, axis=1))
        elif isinstance(layer, Square):
            nodes.append(helper.make_node("Mul", [tensor, tensor], [out], name=name))
        elif isinstance(layer, nn.ReLU):
            nodes.append(helper.make_node("Relu", [tensor], [out], name=name))
        else:
            inputs = [tensor]
            for part in ("weight", "bias"):
                array = getattr(layer, part).detach().numpy().astype(np.float32)
                weights.append(numpy_helper.from_array(array, f"{name}.{part}"))
                inputs.append(f"{name}.{part}")
            nodes.append(helper.make_node("Gemm", inputs, [out], name=name, transB=1))
        tensor = out
    doc = "MNIST digits; pixels 0..1"
    return checked_model(NAME, nodes, weights, doc, (1, 28, 28), {DRAWN: [1, 784]})


def measure(out, data):
    """The error of drawn test digits, and the codes of the sample digits."""
    path = out / f"{NAME}.onnx"
    content = path.read_bytes()
    model = onnx.load_from_string(content)
    images, labels = load_mnist(data, "t10k")
    drawn = run(session(content), images, DRAWN)
    error = float(np.mean((drawn - pixels(images).reshape(len(images), -1)) ** 2))
    chosen = sample_indices(labels)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(v for v in probe.graph.value_info if v.name == CODE)
    codes = run(session(probe.SerializeToString()), images[chosen], CODE)
    print(f"{NAME}: mean squared error {error:.5f}, {parameters(model)} parameters, {len(content)} bytes")
    fields = {
        "mean_squared_error": round(error, 6),
        "of": len(labels),
        "parameters": parameters(model),
        "pixels": "byte / 255",
        "computed_with": computed_with(),
        "files": [f"digits/{i:02}.png" for i in range(len(chosen))],
        "labels": [int(v) for v in labels[chosen]],
    }
    write_golden(path, content, fields, codes, key="codes")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent / "../shared/data/mnist")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    images, _ = load_mnist(args.data, "train")
    net = train(images, args.seed, args.epochs)
    named = [(name, layer) for (name, _), layer in zip(network(), net)]
    model = to_onnx(fold_norms(plain_norms(named)))
    (args.out / f"{NAME}.onnx").write_bytes(model.SerializeToString())
    measure(args.out, args.data)


if __name__ == "__main__":
    main()
