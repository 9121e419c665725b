#!/usr/bin/env python3
"""Train the MNIST networks that SEALion measures, one of them also with L0 gates.

    python models/train_sealion.py list
    python models/train_sealion.py all --data DIR           # train, export, measure, golden logits
    python models/train_sealion.py cnn16_gated --data DIR
    python models/train_sealion.py measure NAME --data DIR  # accuracy and golden logits of a file

DIR holds the four idx files of MNIST; see train.py, whose training, export and measuring these
networks share.

The gated network decides during training which of its activations it can do without: each is
multiplied by a gate drawn from the hard-concrete distribution, which is exactly 0 with a probability
that training raises (Louizos, Welling, Kingma 2018; van Elsloo et al. 2019, section 3.4). In
use a gate is a constant. What all gates of a channel or a dense unit have closed is left out of
the file; an activation that is dead at some places of a channel only is multiplied by 0 there, and
the compiler takes it out.
"""

import argparse
import math
from pathlib import Path

import torch
from common import HERE, load_mnist
from torch import nn
from train import Conv, Recipe, Scale, Square, fold_norms, measure, to_onnx, train

# Hard-concrete distribution: temperature and the interval that it is stretched to.
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


class Gates(nn.Module):
    """A gate for every element of an image; `cost` is what an open one adds to the loss."""

    def __init__(self, shape, cost):
        super().__init__()
        self.cost = cost
        # Gates begin open with a probability of about nine in ten.
        self.log_alpha = nn.Parameter(torch.full(shape, 1.0) + 0.01 * torch.randn(shape))

    def factors(self):
        """The gates in use."""
        stretched = torch.sigmoid(self.log_alpha) * (ZETA - GAMMA) + GAMMA
        return stretched.clamp(0, 1)

    def forward(self, x):
        if not self.training:
            return x * self.factors()
        u = torch.rand_like(x).clamp(1e-6, 1 - 1e-6)
        noise = torch.log(u) - torch.log1p(-u)
        stretched = torch.sigmoid((noise + self.log_alpha) / BETA) * (ZETA - GAMMA) + GAMMA
        return x * stretched.clamp(0, 1)

    def penalty(self):
        """The expected number of open gates, priced."""
        return self.cost * torch.sigmoid(self.log_alpha - BETA * math.log(-GAMMA / ZETA)).sum()


# --- networks ---------------------------------------------------------------------------------


def dnn(width):
    return [
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(784, width)),
        ("bn1", nn.BatchNorm1d(width)),
        ("square1", Square()),
        ("fc2", nn.Linear(width, 10)),
    ]


def cnn16(gates=False):
    # "Same" padding for stride 2: 28 becomes 14, the odd pixels lie below and right.
    layers = [
        ("conv1", Conv(1, 16, 5, stride=2, pads=(1, 1, 2, 2))),
        ("bn1", nn.BatchNorm2d(16)),
        ("square1", Square()),
        ("gates1", Gates((16, 14, 14), GATE_COST)),
        ("pool1", nn.AvgPool2d(2)),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(784, 100)),
        ("bn2", nn.BatchNorm1d(100)),
        ("square2", Square()),
        ("gates2", Gates((100,), 10 * GATE_COST)),
        ("fc2", nn.Linear(100, 10)),
    ]
    return [(name, layer) for name, layer in layers if gates or not isinstance(layer, Gates)]


# What an open gate costs; one before the dense layer, whose unit has hundreds of weights, ten times as much.
GATE_COST = 1e-4

RECIPES = {
    "dnn30": Recipe(lambda: dnn(30), epochs=30, bound=3.0, fold=True),
    "dnn100": Recipe(lambda: dnn(100), epochs=30, bound=3.0, fold=True),
    "cnn16": Recipe(cnn16, epochs=20, bound=3.0, fold=True),
    "cnn16_gated": Recipe(lambda: cnn16(gates=True), epochs=30, bound=3.0, fold=True),
}


# --- removing what gates closed ---------------------------------------------------------------


def without_dead(named):
    """The network without closed channels and units, and gates as constants, with the number of
    open gates of each layer. Normalizations must be folded into the layers before them."""
    out, open_gates = [], {}
    # The layer that makes the gated values; those of its outputs that stay.
    source, alive = None, None
    for name, layer in named:
        if isinstance(layer, (Conv, nn.Linear)):
            if alive is not None:
                keep_inputs(layer, alive)
            source, alive = layer, None
        elif isinstance(layer, Gates):
            factors = layer.factors().detach()
            open_gates[name] = int((factors > 0).sum())
            alive = torch.nonzero(factors.flatten(1).amax(1) if factors.dim() > 1 else factors).flatten()
            keep_outputs(source, alive)
            layer = Scale(factors[alive])
        out.append((name, layer))
    return out, open_gates


def keep_outputs(layer, alive):
    """Drop all outputs of a layer but those given."""
    with torch.no_grad():
        layer.weight = nn.Parameter(layer.weight[alive])
        layer.bias = nn.Parameter(layer.bias[alive])


def keep_inputs(layer, alive):
    """Drop all inputs of a dense layer but those of the channels given."""
    with torch.no_grad():
        outputs, inputs = layer.weight.shape
        channels = CHANNELS[inputs]
        weight = layer.weight.view(outputs, channels, inputs // channels)
        layer.weight = nn.Parameter(weight[:, alive].reshape(outputs, -1))


# Channels of what a dense layer reads, by its number of inputs.
CHANNELS = {784: 16, 100: 100}


# --- command line -----------------------------------------------------------------------------


def make(name, args):
    """Train, export and measure one network."""
    recipe = RECIPES[name]
    images, labels = load_mnist(args.data, "train")
    print(f"training {name}", flush=True)
    net = train(recipe, images, labels, args.seed, args.epochs or recipe.epochs)
    named = [(label, layer) for (label, _), layer in zip(recipe.layers(), net)]
    named, open_gates = without_dead(fold_norms(named))
    for layer, count in open_gates.items():
        print(f"{layer}: {count} open", flush=True)
    model = to_onnx(name, named, "MNIST digits; pixels 0..1")
    (args.out / f"{name}.onnx").write_bytes(model.SerializeToString())
    measure(name, args.out, args.data)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*RECIPES, "all", "measure", "list"])
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
        print("\n".join(RECIPES))
    elif args.what == "measure":
        if args.name is None:
            parser.error("measure needs the name of a model")
        measure(args.name, args.out, args.data)
    else:
        for name in RECIPES if args.what == "all" else [args.what]:
            make(name, args)


if __name__ == "__main__":
    main()
