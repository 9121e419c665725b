#!/usr/bin/env python3
"""Train residual networks on CIFAR-10 and write them as ONNX.

    python models/train_cifar.py list
    python models/train_cifar.py resnet8 --data DIR        # train, export, measure, golden logits
    python models/train_cifar.py all --data DIR            # every network, one after the other
    python models/train_cifar.py measure NAME --data DIR   # accuracy and golden logits of a file
    python models/train_cifar.py calibration --data DIR    # cifar_calibration.npy

DIR holds `test_batch.bin.gz` (the test set in CIFAR-10's binary format) and `train/`: sheets
`sheet_00.webp`, ... of 40 x 25 images each, and `labels.bin`, one byte a label; nothing is
downloaded. Images of CIFAR-10 carry no licence, so neither they nor anything made of them but
weights and logits belongs into git: the calibration sample is written where `--out` says.

Every network takes one image, float32 1x3x32x32 with pixels 0..1, and returns ten logits.

A network is a list of steps, (name, layer, names of its inputs); the same list is run by PyTorch
and written, node by node, by `onnx.helper`.

Training takes hours on a CPU. With `--checkpoints DIR` it saves its whole state after each epoch
and goes on from there when started again, to the same weights as without a break.
"""

import argparse
import gzip
import math
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

# Hermite coefficients of ReLU for the bases 1, x and (x^2 - 1) / sqrt 2 (Park et al. 2022, AESPA).
HERMITE = (1 / math.sqrt(2 * math.pi), 1 / 2, 1 / math.sqrt(4 * math.pi))


# --- layers -----------------------------------------------------------------------------------


class HerPN(nn.Module):
    """The first Hermite terms of ReLU, each batch-normalized for itself; then gain and shift.

    Basis-wise normalization as in Park et al. 2022 (AESPA), section 4. In use, with its
    statistics fixed, it is a quadratic polynomial for each channel.
    """

    def __init__(self, channels):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels, affine=False)
        self.norm2 = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        # What the loss is to hold within bounds: the normalized input.
        self.seen = None

    def forward(self, x):
        # Squares of bfloat16 have too few digits for statistics.
        x = x.float()
        with torch.autocast("cpu", enabled=False):
            h1 = self.norm1(x)
            h2 = self.norm2((x * x - 1) / math.sqrt(2))
            self.seen = h1
            y = HERMITE[0] + HERMITE[1] * h1 + HERMITE[2] * h2
            return y * self.gain.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)


class Sum(nn.Module):
    """The sum of two tensors of one shape."""

    def forward(self, x, y):
        return x + y


def conv(cin, cout, kernel=3, stride=1):
    return nn.Conv2d(cin, cout, kernel, stride, padding=kernel // 2, bias=False)


# --- networks ---------------------------------------------------------------------------------


def resnet(widths, blocks):
    """Residual network for 32 x 32 images (He et al. 2015, section 4.2), shortcuts of option B."""
    steps = []

    def add(name, layer, *inputs):
        steps.append((name, layer, inputs))
        return name

    x = add("conv1", conv(3, widths[0]), IMAGE)
    x = add("bn1", nn.BatchNorm2d(widths[0]), x)
    x = add("relu1", nn.ReLU(), x)
    cin = widths[0]
    for stage, width in enumerate(widths, 1):
        for block in range(blocks):
            p = f"layer{stage}_{block}_"
            stride = 2 if stage > 1 and block == 0 else 1
            y = add(p + "conv1", conv(cin, width, stride=stride), x)
            y = add(p + "bn1", nn.BatchNorm2d(width), y)
            y = add(p + "relu1", nn.ReLU(), y)
            y = add(p + "conv2", conv(width, width), y)
            y = add(p + "bn2", nn.BatchNorm2d(width), y)
            if cin != width:
                x = add(p + "shortcut", conv(cin, width, 1, stride), x)
                x = add(p + "shortcut_bn", nn.BatchNorm2d(width), x)
            x = add(p + "add", Sum(), y, x)
            x = add(p + "relu2", nn.ReLU(), x)
            cin = width
    return head(add, steps, x, cin)


def resnet_herpn(widths, blocks):
    """The same with HerPN before each convolution (pre-activation, He et al. 2016).

    Activations inside the branches leave the main path linear: a product of squares along it
    would have tails that no range holds.
    """
    steps = []

    def add(name, layer, *inputs):
        steps.append((name, layer, inputs))
        return name

    x = add("conv1", conv(3, widths[0]), IMAGE)
    cin = widths[0]
    for stage, width in enumerate(widths, 1):
        for block in range(blocks):
            p = f"layer{stage}_{block}_"
            stride = 2 if stage > 1 and block == 0 else 1
            y = add(p + "herpn1", HerPN(cin), x)
            if cin != width:
                x = add(p + "shortcut", conv(cin, width, 1, stride), y)
            y = add(p + "conv1", conv(cin, width, stride=stride), y)
            y = add(p + "herpn2", HerPN(width), y)
            y = add(p + "conv2", conv(width, width), y)
            x = add(p + "add", Sum(), y, x)
            cin = width
    x = add("herpn", HerPN(cin), x)
    return head(add, steps, x, cin)


def head(add, steps, x, channels):
    x = add("pool", nn.AdaptiveAvgPool2d(1), x)
    x = add("flatten", nn.Flatten(), x)
    add("fc", nn.Linear(channels, 10), x)
    return steps


class Network(nn.Module):
    """Runs a list of steps; the last one's output is the result."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleDict({name: layer for name, layer, _ in steps})
        self.last_use = {}
        for position, (_, _, inputs) in enumerate(steps):
            for tensor in inputs:
                self.last_use[tensor] = position

    def forward(self, image):
        known, x = {IMAGE: image}, None
        for position, (name, layer, inputs) in enumerate(self.steps):
            x = known[name] = layer(*(known[tensor] for tensor in inputs))
            for tensor in inputs:
                if self.last_use[tensor] == position:
                    known.pop(tensor, None)
        return x


@dataclass(frozen=True)
class Recipe:
    """How one network is trained and written."""

    steps: Callable[[], list]
    epochs: int
    peak_rate: float
    # Write batch normalization into the convolutions instead of as nodes of its own.
    fold: bool = False
    # Normalized inputs of HerPN are penalised beyond +-bound.
    bound: float | None = None
    clip: float = 5.0
    batch: int = 128
    decay: float = 5e-4


RECIPES = {
    "resnet8": Recipe(lambda: resnet((16, 32, 64), 1), epochs=14, peak_rate=0.2, fold=True),
    "resnet20_herpn": Recipe(
        lambda: resnet_herpn((16, 32, 64), 3), epochs=16, peak_rate=0.1, bound=6.0, clip=1.0
    ),
    "resnet20": Recipe(lambda: resnet((16, 32, 64), 3), epochs=16, peak_rate=0.2),
}


# --- data -------------------------------------------------------------------------------------


def load_train(folder):
    """Training images (n, 3, 32, 32) as bytes, and their labels."""
    labels = np.frombuffer((folder / "train/labels.bin").read_bytes(), np.uint8)
    sheets = []
    for path in sorted((folder / "train").glob("sheet_*.webp")):
        sheet = np.asarray(Image.open(path).convert("RGB"))
        rows, cols = sheet.shape[0] // 32, sheet.shape[1] // 32
        tiles = sheet.reshape(rows, 32, cols, 32, 3).transpose(0, 2, 4, 1, 3)
        sheets.append(tiles.reshape(-1, 3, 32, 32))
    images = np.concatenate(sheets)
    if len(images) != len(labels):
        raise SystemExit(f"{folder}: {len(images)} training images, {len(labels)} labels")
    return images, labels


def load_test(folder):
    """The test set, likewise, in its own order."""
    raw = np.frombuffer(gzip.decompress((folder / "test_batch.bin.gz").read_bytes()), np.uint8)
    records = raw.reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def augment(images, rng):
    """Shift by up to 4 pixels, zeros moving in, and mirror half of the images."""
    n = len(images)
    padded = F.pad(images, (4, 4, 4, 4))
    dy = torch.randint(9, (n, 1, 1), generator=rng)
    dx = torch.randint(9, (n, 1, 1), generator=rng)
    mirror = torch.rand(n, 1, 1, generator=rng) < 0.5
    span = torch.arange(32)
    rows = dy + span.view(1, 32, 1)
    cols = dx + torch.where(mirror, 31 - span, span)
    return padded.permute(0, 2, 3, 1)[torch.arange(n).view(n, 1, 1), rows, cols].permute(0, 3, 1, 2)


# --- training ---------------------------------------------------------------------------------


def rate(done):
    """The learning rate at a part 0..1 of the way, over its peak: up for 30 %, then down to 0."""
    if done < 0.3:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / 0.3)) / 2
    return (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2


def excess(net, bound):
    """How far the inputs of HerPN lie beyond `bound` deviations, a number for the loss."""
    layers = [layer for _, layer, _ in net.steps if isinstance(layer, HerPN)]
    return sum(F.relu(layer.seen.abs() - bound).square().flatten(1).sum(1).mean() for layer in layers)


def train(name, recipe, images, labels, args):
    """Train a network, going on from a checkpoint if there is one; return it for evaluation."""
    epochs = args.epochs or recipe.epochs
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    net = Network(recipe.steps()).to(memory_format=torch.channels_last)
    x, y = torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))
    decay = [p for p in net.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if p.dim() == 1]
    optimizer = torch.optim.SGD(
        [{"params": decay, "weight_decay": recipe.decay}, {"params": rest, "weight_decay": 0.0}],
        lr=recipe.peak_rate,
        momentum=0.9,
        nesterov=True,
    )
    first = 0
    saved = args.checkpoints / f"{name}.pt" if args.checkpoints else None
    if saved and saved.exists():
        state = torch.load(saved, weights_only=True)
        if (state["epochs"], state["seed"]) != (epochs, args.seed):
            raise SystemExit(f"{saved}: made with other --epochs or --seed; remove it to start anew")
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        rng.set_state(state["rng"])
        first = state["done"]
        print(f"{name}: {first} of {epochs} epochs are done", flush=True)

    steps = len(x) // recipe.batch
    for epoch in range(first, epochs):
        start, loss_sum, right = time.time(), 0.0, 0
        net.train()
        order = torch.randperm(len(x), generator=rng)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.peak_rate * rate((epoch + step / steps) / epochs)
            pick = order[step * recipe.batch : (step + 1) * recipe.batch]
            batch = augment(x[pick], rng).float().div(255)
            batch = batch.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
                logits = net(batch).float()
            loss = F.cross_entropy(logits, y[pick], label_smoothing=0.05)
            if recipe.bound is not None:
                loss = loss + 0.01 * excess(net, recipe.bound)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
            optimizer.step()
            loss_sum += float(loss.detach())
            right += int((logits.detach().argmax(1) == y[pick]).sum())
        print(
            f"{name}: epoch {epoch + 1:2}/{epochs}  loss {loss_sum / steps:.4f}  "
            f"train {right / (steps * recipe.batch):.4f}  {time.time() - start:.0f} s",
            flush=True,
        )
        if saved:
            state = {
                "net": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "rng": rng.get_state(),
                "done": epoch + 1,
                "epochs": epochs,
                "seed": args.seed,
            }
            # Renamed into place: a break while writing must not cost the one before.
            torch.save(state, saved.with_suffix(".new"))
            saved.with_suffix(".new").replace(saved)
    return net.eval()


# --- ONNX -------------------------------------------------------------------------------------


def fold_norms(steps):
    """Multiply each batch normalization into the convolution before it (f64)."""
    out, renamed = [], {}
    for name, layer, inputs in steps:
        inputs = tuple(renamed.get(tensor, tensor) for tensor in inputs)
        if not isinstance(layer, nn.BatchNorm2d):
            out.append((name, layer, inputs))
            continue
        before = next(step[1] for step in out if step[0] == inputs[0])
        gain = layer.weight.double() / torch.sqrt(layer.running_var.double() + layer.eps)
        bias = layer.bias.double() - layer.running_mean.double() * gain
        with torch.no_grad():
            before.weight.copy_(before.weight.double() * gain.view(-1, 1, 1, 1))
            before.bias = nn.Parameter(bias.float())
        renamed[name] = inputs[0]
    return out


class Writer:
    """Collects nodes and weights of an ONNX graph."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def weight(self, label, value):
        array = np.asarray(torch.as_tensor(value).detach(), dtype=np.float32)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), label))
        return label

    def node(self, op, inputs, name, out=None, **attributes):
        out = out or f"{name}_out"
        self.nodes.append(helper.make_node(op, inputs, [out], name=name, **attributes))
        return out

    def norm(self, name, layer, x):
        channels = layer.num_features
        gain = layer.weight if layer.affine else torch.ones(channels)
        shift = layer.bias if layer.affine else torch.zeros(channels)
        inputs = [
            x,
            self.weight(f"{name}.scale", gain),
            self.weight(f"{name}.bias", shift),
            self.weight(f"{name}.mean", layer.running_mean),
            self.weight(f"{name}.var", layer.running_var),
        ]
        return self.node("BatchNormalization", inputs, name, epsilon=layer.eps)

    def herpn(self, name, layer, x):
        def scalar(label, value):
            return self.weight(f"{name}.{label}", torch.tensor(value))

        h1 = self.norm(f"{name}_norm1", layer.norm1, x)
        square = self.node("Mul", [x, x], f"{name}_square")
        less = self.node("Sub", [square, scalar("one", 1.0)], f"{name}_less")
        h2 = self.node("Div", [less, scalar("root2", math.sqrt(2))], f"{name}_h2")
        h2 = self.norm(f"{name}_norm2", layer.norm2, h2)
        t1 = self.node("Mul", [h1, scalar("f1", HERMITE[1])], f"{name}_term1")
        t2 = self.node("Mul", [h2, scalar("f2", HERMITE[2])], f"{name}_term2")
        y = self.node("Add", [t1, scalar("f0", HERMITE[0])], f"{name}_terms01")
        y = self.node("Add", [y, t2], f"{name}_terms")
        gain = self.weight(f"{name}.gain", layer.gain.view(1, -1, 1, 1))
        shift = self.weight(f"{name}.shift", layer.shift.view(1, -1, 1, 1))
        return self.node("Add", [self.node("Mul", [y, gain], f"{name}_gain"), shift], name)

    def step(self, name, layer, inputs, out):
        if isinstance(layer, nn.Conv2d):
            inputs = [*inputs, self.weight(f"{name}.weight", layer.weight)]
            if layer.bias is not None:
                inputs.append(self.weight(f"{name}.bias", layer.bias))
            return self.node(
                "Conv",
                inputs,
                name,
                out,
                kernel_shape=layer.kernel_size,
                strides=layer.stride,
                pads=[*layer.padding, *layer.padding],
            )
        if isinstance(layer, nn.BatchNorm2d):
            return self.norm(name, layer, inputs[0])
        if isinstance(layer, HerPN):
            return self.herpn(name, layer, inputs[0])
        if isinstance(layer, nn.ReLU):
            return self.node("Relu", inputs, name, out)
        if isinstance(layer, Sum):
            return self.node("Add", inputs, name, out)
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            return self.node("GlobalAveragePool", inputs, name, out)
        if isinstance(layer, nn.Flatten):
            return self.node("Flatten", inputs, name, out, axis=1)
        if isinstance(layer, nn.Linear):
            weights = [self.weight(f"{name}.weight", layer.weight), self.weight(f"{name}.bias", layer.bias)]
            return self.node("Gemm", [*inputs, *weights], name, out, transB=1)
        raise TypeError(f"{name}: no ONNX form for {type(layer).__name__}")


def to_onnx(name, steps):
    """The network as a checked ONNX model with named nodes and fixed shapes."""
    writer, tensors = Writer(), {IMAGE: IMAGE}
    for position, (label, layer, inputs) in enumerate(steps):
        out = LOGITS if position == len(steps) - 1 else None
        tensors[label] = writer.step(label, layer, [tensors[i] for i in inputs], out)
    doc = "CIFAR-10 images; pixels 0..1"
    shapes = {LOGITS: [1, 10]}
    return checked_model(name, writer.nodes, writer.weights, doc, (3, 32, 32), shapes)


# --- measuring --------------------------------------------------------------------------------


def measure(name, args):
    """Check a model file, measure it on the whole test set and write its golden logits."""
    path = args.out / f"{name}.onnx"
    content = path.read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    images, labels = load_test(args.data)
    logits = run(session(content), images)
    right = int((logits.argmax(1) == labels).sum())
    chosen = sample_indices(labels)
    golden = logits[chosen]
    count = parameters(model)
    print(f"{name}: {right}/{len(labels)}, {count} parameters, {len(content)} bytes", flush=True)
    print(f"  right among the samples: {int((golden.argmax(1) == labels[chosen]).sum())}/20")
    print(f"  logits: {logits.min():.2f} to {logits.max():.2f}")
    fields = {
        "correct": right,
        "of": len(labels),
        "parameters": count,
        "pixels": "byte / 255",
        "computed_with": computed_with(),
        "test_images": [int(i) for i in chosen],
        "labels": [int(v) for v in labels[chosen]],
    }
    write_golden(path, content, fields, golden)


def write_calibration(args):
    """Write cifar_calibration.npy: the first 12 training images of each class, as bytes."""
    images, labels = load_train(args.data)
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == label)[:12] for label in range(10)]))
    np.save(args.out / "cifar_calibration.npy", images[chosen])


# --- command line -----------------------------------------------------------------------------


def make(name, args):
    """Train, export and measure one network."""
    recipe = RECIPES[name]
    images, labels = load_train(args.data)
    print(f"training {name}", flush=True)
    net = train(name, recipe, images, labels, args)
    net = net.to(memory_format=torch.contiguous_format)
    steps = fold_norms(net.steps) if recipe.fold else net.steps
    model = to_onnx(name, steps)
    (args.out / f"{name}.onnx").write_bytes(model.SerializeToString())
    measure(name, args)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*RECIPES, "all", "calibration", "measure", "list"])
    parser.add_argument("name", nargs="?", choices=[*RECIPES], help="the model, for measure")
    parser.add_argument("--data", type=Path, default=HERE.parent / "../shared/data/cifar10")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--checkpoints", type=Path, help="folder to save to and to go on from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--bfloat16", action="store_true", help="faster on processors that have it; other weights"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for folder in filter(None, (args.out, args.checkpoints)):
        folder.mkdir(parents=True, exist_ok=True)

    if args.what == "list":
        print("\n".join(RECIPES))
    elif args.what == "calibration":
        write_calibration(args)
    elif args.what == "measure":
        if args.name is None:
            parser.error("measure needs the name of a model")
        measure(args.name, args)
    elif args.what == "all":
        for name in RECIPES:
            make(name, args)
    else:
        make(args.what, args)


if __name__ == "__main__":
    main()
