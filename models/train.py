#!/usr/bin/env python3
"""Train the bundled MNIST networks and write them as ONNX.

    python models/train.py list
    python models/train.py mlp_square --data DIR      # train, export, measure, write golden logits
    python models/train.py all --data DIR             # every model that is kept in git
    python models/train.py samples --data DIR         # digits/, mnist_labels.txt, calibration.npy
    python models/train.py measure NAME --data DIR    # accuracy and golden logits of an existing file

DIR holds the four idx files of MNIST (`train-images-idx3-ubyte.gz` and so on); nothing is
downloaded. Every network takes one image, float32 1x1x28x28 with pixels 0..1, and returns ten
logits. Training runs on the CPU, by default on one thread, so that a seed fixes the result for
one machine and one version of PyTorch.

A network is a list of the layers below; the same list is trained by PyTorch and written, node by
node, by `onnx.helper`. That keeps the files small, the names readable and the result independent
of an exporter's version.

Encryption makes two demands on training. Values must stay moderate, since the approximation of
an activation and the precision of the result both depend on the range they are computed over:
batch normalization precedes each activation, and activation inputs beyond a bound are penalised.
And statistics must not drift between training and use: batch normalization is frozen for the
last epochs, so the weights settle on the constants that are exported.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from common import (
    HERE,
    IMAGE,
    LOGITS,
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
from PIL import Image
from torch import nn


# --- layers -----------------------------------------------------------------------------------


class Conv(nn.Conv2d):
    """Convolution with ONNX pads: top, left, bottom, right (they may differ)."""

    def __init__(self, cin, cout, kernel, stride=1, pads=(0, 0, 0, 0)):
        super().__init__(cin, cout, kernel, stride=stride)
        self.pads = pads

    def forward(self, x):
        top, left, bottom, right = self.pads
        return super().forward(F.pad(x, (left, right, top, bottom)))


class Square(nn.Module):
    """x squared, written as `Mul(x, x)`, or as `Pow(x, 2)` if `pow_node`."""

    def __init__(self, pow_node=False):
        super().__init__()
        self.pow_node = pow_node

    def forward(self, x):
        return x * x


class Scale(nn.Module):
    """Every element of an image times a constant of its own."""

    def __init__(self, factors):
        super().__init__()
        self.register_buffer("factors", factors)

    def forward(self, x):
        return x * self.factors


ACTIVATIONS = (Square, nn.SiLU, nn.ReLU)


# --- networks ---------------------------------------------------------------------------------


def mlp_square():
    return [
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(784, 128)),
        ("bn1", nn.BatchNorm1d(128)),
        ("square1", Square()),
        ("fc2", nn.Linear(128, 128)),
        ("bn2", nn.BatchNorm1d(128)),
        ("square2", Square()),
        ("fc3", nn.Linear(128, 10)),
    ]


def cryptonets():
    # 28x28 is padded by one row below and one column to the right: 29x29, hence 13x13x5 = 845.
    return [
        ("conv1", Conv(1, 5, 5, stride=2, pads=(0, 0, 1, 1))),
        ("bn1", nn.BatchNorm2d(5)),
        ("square1", Square(pow_node=True)),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(845, 100)),
        ("bn2", nn.BatchNorm1d(100)),
        ("square2", Square(pow_node=True)),
        ("fc2", nn.Linear(100, 10)),
    ]


def lola():
    return [
        ("conv1", Conv(1, 5, 5, stride=2, pads=(2, 2, 2, 2))),
        ("bn1", nn.BatchNorm2d(5)),
        ("square1", Square()),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(980, 100)),
        ("bn2", nn.BatchNorm1d(100)),
        ("square2", Square()),
        ("fc2", nn.Linear(100, 10)),
    ]


def lenet5(activation):
    name = activation.__name__.lower()
    return [
        ("conv1", Conv(1, 6, 5, pads=(2, 2, 2, 2))),
        ("bn1", nn.BatchNorm2d(6)),
        (f"{name}1", activation()),
        ("pool1", nn.AvgPool2d(2)),
        ("conv2", Conv(6, 16, 5)),
        ("bn2", nn.BatchNorm2d(16)),
        (f"{name}2", activation()),
        ("pool2", nn.AvgPool2d(2)),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(400, 120)),
        ("bn3", nn.BatchNorm1d(120)),
        (f"{name}3", activation()),
        ("fc2", nn.Linear(120, 84)),
        ("bn4", nn.BatchNorm1d(84)),
        (f"{name}4", activation()),
        ("fc3", nn.Linear(84, 10)),
    ]


def lenet_square():
    return [
        ("conv1", Conv(1, 32, 5, stride=2, pads=(2, 2, 2, 2))),
        ("bn1", nn.BatchNorm2d(32)),
        ("square1", Square()),
        ("conv2", Conv(32, 64, 5, stride=2, pads=(2, 2, 2, 2))),
        ("bn2", nn.BatchNorm2d(64)),
        ("square2", Square()),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(3136, 512)),
        ("bn3", nn.BatchNorm1d(512)),
        ("square3", Square()),
        ("fc2", nn.Linear(512, 10)),
    ]


@dataclass(frozen=True)
class Recipe:
    """How one network is trained and written."""

    layers: Callable[[], list]
    epochs: int
    # Activation inputs are penalised beyond +-bound.
    bound: float
    # Write batch normalization into the weights before it instead of as nodes of its own.
    fold: bool = False
    # Kept in git, and trained by `all`.
    bundled: bool = True
    batch: int = 256
    peak_rate: float = 4e-3


RECIPES = {
    "mlp_square": Recipe(mlp_square, epochs=30, bound=3.0),
    "cryptonets": Recipe(cryptonets, epochs=30, bound=3.0, fold=True),
    "lola": Recipe(lola, epochs=30, bound=3.0),
    "lenet_silu": Recipe(lambda: lenet5(nn.SiLU), epochs=14, bound=5.0, fold=True),
    "lenet_relu": Recipe(lambda: lenet5(nn.ReLU), epochs=14, bound=5.0, fold=True),
    "lenet_square": Recipe(lenet_square, epochs=6, bound=3.0, bundled=False, peak_rate=2e-3),
}


# --- data -------------------------------------------------------------------------------------


def jitter(x, rng):
    """Turn by up to 10 degrees, scale by up to 10 % and shift by up to 2 pixels, each at random."""
    n = len(x)
    u = torch.rand(4, n, generator=rng) * 2 - 1
    angle, scale = u[0] * (torch.pi / 18), 1 + 0.1 * u[1]
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    # affine_grid measures in half widths: 2 pixels of 28 are 2/14.
    dx, dy = u[2] / 7, u[3] / 7
    matrix = torch.stack([cos, -sin, dx, sin, cos, dy], dim=1).view(n, 2, 3)
    return F.grid_sample(x, F.affine_grid(matrix, x.shape, align_corners=False), align_corners=False)


# --- training ---------------------------------------------------------------------------------


class Excess:
    """Sums how far the inputs of all activations lie beyond `bound`, for the loss."""

    def __init__(self, net, bound):
        self.bound, self.total = bound, 0.0
        for layer in net:
            if isinstance(layer, ACTIVATIONS):
                layer.register_forward_pre_hook(self.add)

    def add(self, _layer, inputs):
        over = F.relu(inputs[0].abs() - self.bound)
        self.total = self.total + (over * over).flatten(1).sum(1).mean()

    def take(self):
        total, self.total = self.total, 0.0
        return total


def train(recipe, images, labels, seed, epochs):
    """Train a network and return it in evaluation mode.

    Layers with a method `penalty` add its value to the loss.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = nn.Sequential(*(layer for _, layer in recipe.layers()))
    excess = Excess(net, recipe.bound)
    penalised = [layer for layer in net if hasattr(layer, "penalty")]
    x, y = torch.from_numpy(pixels(images)), torch.from_numpy(labels.astype(np.int64))

    steps = len(x) // recipe.batch
    # Decay only matrices: biases and the gains of normalization keep the ranges in place.
    decay = [p for p in net.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_rate, epochs=epochs, steps_per_epoch=steps
    )
    frozen_from = max(1, epochs - max(1, epochs // 6))
    for epoch in range(epochs):
        start, loss_sum, excess_sum = time.time(), 0.0, 0.0
        net.train()
        if epoch >= frozen_from:
            for layer in net:
                if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                    layer.eval()
        order = torch.randperm(len(x), generator=rng)
        for step in range(steps):
            pick = order[step * recipe.batch : (step + 1) * recipe.batch]
            # Half stays as it is: interpolation blurs, and a network trained on blurred digits
            # alone does worse on sharp ones.
            half = recipe.batch // 2
            digits = torch.cat([jitter(x[pick[:half]], rng), x[pick[half:]]])
            logits = net(digits)
            beyond = excess.take()
            loss = F.cross_entropy(logits, y[pick], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            for layer in penalised:
                loss = loss + layer.penalty()
            (loss + 0.01 * beyond).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            loss_sum += float(loss.detach())
            excess_sum += float(beyond.detach())
        print(
            f"epoch {epoch + 1:2}/{epochs}  loss {loss_sum / steps:.4f}  "
            f"excess {excess_sum / steps:.4f}  {time.time() - start:.1f} s",
            flush=True,
        )
    return net.eval()


# --- ONNX -------------------------------------------------------------------------------------


def fold_norms(named):
    """Multiply each batch normalization into the convolution or dense layer before it (f64)."""
    out = []
    for name, layer in named:
        if not isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            out.append((name, layer))
            continue
        before = out[-1][1]
        with torch.no_grad():
            gain = layer.weight.double() / torch.sqrt(layer.running_var.double() + layer.eps)
            shape = (-1,) + (1,) * (before.weight.dim() - 1)
            bias = (before.bias.double() - layer.running_mean.double()) * gain + layer.bias.double()
            before.weight.copy_(before.weight.double() * gain.view(shape))
            before.bias.copy_(bias)
    return out


def to_onnx(name, named, doc):
    """The network as a checked ONNX model with named nodes and fixed shapes."""
    nodes, weights = [], []

    def weight(label, value):
        array = value.detach().numpy().astype(np.float32)
        weights.append(numpy_helper.from_array(array, label))
        return label

    tensor = IMAGE
    for position, (label, layer) in enumerate(named):
        out = LOGITS if position == len(named) - 1 else f"{label}_out"
        inputs, attributes = [tensor], {}
        if isinstance(layer, Conv):
            op = "Conv"
            inputs += [weight(f"{label}.weight", layer.weight), weight(f"{label}.bias", layer.bias)]
            attributes = {
                "kernel_shape": layer.kernel_size,
                "strides": layer.stride,
                "pads": layer.pads,
                "dilations": layer.dilation,
                "group": layer.groups,
            }
        elif isinstance(layer, nn.Linear):
            op = "Gemm"
            inputs += [weight(f"{label}.weight", layer.weight), weight(f"{label}.bias", layer.bias)]
            attributes = {"alpha": 1.0, "beta": 1.0, "transB": 1}
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            op = "BatchNormalization"
            inputs += [
                weight(f"{label}.scale", layer.weight),
                weight(f"{label}.bias", layer.bias),
                weight(f"{label}.mean", layer.running_mean),
                weight(f"{label}.var", layer.running_var),
            ]
            attributes = {"epsilon": layer.eps}
        elif isinstance(layer, Square) and layer.pow_node:
            op = "Pow"
            inputs.append(weight(f"{label}.exponent", torch.tensor(2.0)))
        elif isinstance(layer, Square):
            op = "Mul"
            inputs.append(tensor)
        elif isinstance(layer, Scale):
            op = "Mul"
            inputs.append(weight(f"{label}.factors", layer.factors[None]))
        elif isinstance(layer, nn.SiLU):
            # Opset 17 has no SiLU of its own.
            gate = f"{label}_gate"
            nodes.append(helper.make_node("Sigmoid", [tensor], [gate], name=f"{label}_sigmoid"))
            op = "Mul"
            inputs.append(gate)
        elif isinstance(layer, nn.ReLU):
            op = "Relu"
        elif isinstance(layer, nn.AvgPool2d):
            op = "AveragePool"
            size = [layer.kernel_size] * 2
            attributes = {"kernel_shape": size, "strides": size, "pads": [0, 0, 0, 0]}
        elif isinstance(layer, nn.Flatten):
            op, attributes = "Flatten", {"axis": 1}
        else:
            raise TypeError(f"{label}: no ONNX form for {type(layer).__name__}")
        nodes.append(helper.make_node(op, inputs, [out], name=label, **attributes))
        tensor = out

    shapes = {LOGITS: [1, 10]}
    return checked_model(name, nodes, weights, doc, (1, 28, 28), shapes)


# --- measuring --------------------------------------------------------------------------------


def activation_ranges(model, images):
    """Smallest and largest input of each activation over some images: name -> (low, high)."""
    watched = {}
    for node in model.graph.node:
        squares = node.op_type == "Mul" and node.input[0] == node.input[1]
        if squares or node.op_type in ("Pow", "Sigmoid", "Relu"):
            watched[node.name] = node.input[0]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {value.name: value for value in probe.graph.value_info}
    probe.graph.output.extend(known[tensor] for tensor in watched.values())
    runner = session(probe.SerializeToString())
    low, high = np.full(len(watched), np.inf), np.full(len(watched), -np.inf)
    for x in pixels(images):
        values = runner.run(list(watched.values()), {IMAGE: x[None]})
        low = np.minimum(low, [v.min() for v in values])
        high = np.maximum(high, [v.max() for v in values])
    return {n: (float(a), float(b)) for n, a, b in zip(watched, low, high)}


def measure(name, out, data):
    """Check a model file, measure it on the whole test set and write its golden logits."""
    path = out / f"{name}.onnx"
    content = path.read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    images, labels = load_mnist(data, "t10k")
    runner = session(content)
    right = int((run(runner, images).argmax(1) == labels).sum())
    chosen = sample_indices(labels)
    golden = run(runner, images[chosen])
    ranges = activation_ranges(model, images)
    count = parameters(model)
    print(f"{name}: {right}/10000, {count} parameters, {len(content)} bytes")
    print(f"  right among the samples: {int((golden.argmax(1) == labels[chosen]).sum())}/20")
    print(f"  logits of the samples: {golden.min():.2f} to {golden.max():.2f}")
    for node, (low, high) in ranges.items():
        print(f"  input of {node}: {low:.2f} to {high:.2f}")
    fields = {
        "correct": right,
        "of": len(labels),
        "parameters": count,
        "pixels": "byte / 255",
        "computed_with": computed_with(),
        "files": [f"digits/{i:02}.png" for i in range(len(chosen))],
        "labels": [int(v) for v in labels[chosen]],
        "activation_inputs": {n: [round(a, 3), round(b, 3)] for n, (a, b) in ranges.items()},
    }
    write_golden(path, content, fields, golden)


# --- samples ----------------------------------------------------------------------------------


def calibration_indices(images, labels, seed):
    """128 training images: 64 drawn by chance, and the extremes of ink of each class.

    The values in a network grow with the ink of a digit, so the fattest and the thinnest ones
    show more of the ranges than as many drawn by chance.
    """
    ink = images.reshape(len(images), -1).sum(1, dtype=np.int64)
    picked = []
    for digit in range(10):
        of_class = np.flatnonzero(labels == digit)
        by_ink = of_class[np.argsort(ink[of_class], kind="stable")]
        picked += [*by_ink[:2], *by_ink[-4:]]
    rest = np.setdiff1d(np.arange(len(images)), picked)
    chance = np.random.default_rng(seed).choice(rest, 128 - len(picked), replace=False)
    return np.sort(np.concatenate([picked, chance]))


def write_samples(out, data, seed):
    """Write digits/, mnist_labels.txt and calibration.npy."""
    images, labels = load_mnist(data, "t10k")
    chosen = sample_indices(labels)
    folder = out / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    for position, index in enumerate(chosen):
        Image.fromarray(images[index, 0], mode="L").save(folder / f"{position:02}.png", optimize=True)
    (folder / "labels.txt").write_text("".join(f"{labels[i]}\n" for i in chosen))
    (out / "mnist_labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))

    images, labels = load_mnist(data, "train")
    np.save(out / "calibration.npy", images[calibration_indices(images, labels, seed)])
    print("test images:", ", ".join(str(i) for i in chosen))


# --- command line -----------------------------------------------------------------------------


def make(name, args):
    """Train, export and measure one network."""
    recipe = RECIPES[name]
    images, labels = load_mnist(args.data, "train")
    print(f"training {name}", flush=True)
    net = train(recipe, images, labels, args.seed, args.epochs or recipe.epochs)
    named = [(label, layer) for (label, _), layer in zip(recipe.layers(), net)]
    if recipe.fold:
        named = fold_norms(named)
    model = to_onnx(name, named, "MNIST digits; pixels 0..1")
    (args.out / f"{name}.onnx").write_bytes(model.SerializeToString())
    measure(name, args.out, args.data)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*RECIPES, "all", "samples", "measure", "list"])
    parser.add_argument("name", nargs="?", choices=[*RECIPES], help="the model, for measure")
    parser.add_argument("--data", type=Path, default=HERE.parent / "../shared/data/mnist")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's own")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)

    if args.what == "list":
        for name, recipe in RECIPES.items():
            print(name if recipe.bundled else f"{name} (not kept in git)")
    elif args.what == "samples":
        write_samples(args.out, args.data, args.seed)
    elif args.what == "measure":
        if args.name is None:
            parser.error("measure needs the name of a model")
        measure(args.name, args.out, args.data)
    elif args.what == "all":
        for name in (n for n, recipe in RECIPES.items() if recipe.bundled):
            make(name, args)
    else:
        make(args.what, args)


if __name__ == "__main__":
    main()
