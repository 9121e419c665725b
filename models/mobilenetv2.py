#!/usr/bin/env python3
"""Write MobileNetV2 as ONNX, with the published shape and random weights.

    python models/mobilenetv2.py --width 0.35 --size 96 --out mobilenetv2_035_96.onnx

Sandler et al. 2018, table 2, channels rounded to multiples of eight as there; batch normalization is taken
as folded. Nothing is learned: the weights are what training starts from (He et al. 2015), from a fixed
seed. That is enough to measure time and memory, which do not depend on what the weights are.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from common import IMAGE, LOGITS, checked_model, parameters
from onnx import helper, numpy_helper

# Expansion, channels, blocks, stride of the first.
STAGES = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
FIRST, LAST, CLASSES = 32, 1280, 1000


def rounded(channels, width):
    """A multiple of eight near `channels · width`, less by 10 % at most."""
    exact = channels * width
    near = max(8, int(exact + 4) // 8 * 8)
    return near + 8 if near < 0.9 * exact else near


class Writer:
    """Nodes and weights of a network, layer after layer."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def constant(self, name, values):
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def node(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def random(self, name, shape, gain):
        """Weights that keep the variance of what is `gain` times as large before the layer."""
        fan_in = int(np.prod(shape[1:]))
        return self.constant(name, self.rng.normal(0.0, np.sqrt(gain / fan_in), shape))

    def conv(self, x, name, channels, kernel, stride=1, groups=1, relu=True):
        """A convolution (channels in and out), padded to the same size, and ReLU6 if `relu`."""
        before, after = channels
        weight = self.random(f"{name}/weight", (after, before // groups, kernel, kernel), 2.0 if relu else 1.0)
        bias = self.constant(f"{name}/bias", self.rng.normal(0.0, 0.05, after))
        pads = [kernel // 2] * 4
        x = self.node("Conv", [x, weight, bias], name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=groups)
        return self.relu6(x, f"{name}/relu6") if relu else x

    def relu6(self, x, name):
        lo = self.constant(f"{name}/min", 0.0)
        hi = self.constant(f"{name}/max", 6.0)
        return self.node("Clip", [x, lo, hi], name)

    def block(self, x, name, channels, expansion, stride):
        """An inverted residual block with a linear bottleneck (section 3.3)."""
        before, after = channels
        inner = before * expansion
        y = self.conv(x, f"{name}/expand", (before, inner), 1) if expansion > 1 else x
        y = self.conv(y, f"{name}/depthwise", (inner, inner), 3, stride, groups=inner)
        y = self.conv(y, f"{name}/project", (inner, after), 1, relu=False)
        return self.node("Add", [x, y], f"{name}/add") if stride == 1 and before == after else y


def network(width, size, seed):
    """The checked model for pictures of `size` times `size` pixels."""
    w = Writer(seed)
    channels = rounded(FIRST, width)
    x = w.conv(IMAGE, "first", (3, channels), 3, stride=2)
    for stage, (expansion, wide, blocks, stride) in enumerate(STAGES, 1):
        for block in range(1, blocks + 1):
            after = rounded(wide, width)
            x = w.block(x, f"stage{stage}/block{block}", (channels, after), expansion, stride if block == 1 else 1)
            channels = after
    last = rounded(LAST, max(width, 1.0))
    x = w.conv(x, "last", (channels, last), 1)
    x = w.node("GlobalAveragePool", [x], "pool")
    x = w.node("Flatten", [x], "flatten")
    weight, bias = w.random("classes/weight", (CLASSES, last), 1.0), w.constant("classes/bias", np.zeros(CLASSES))
    w.node("Gemm", [x, weight, bias], LOGITS, transB=1)
    doc = f"MobileNetV2 {width}, {size}x{size}, random weights (seed {seed})"
    return checked_model("mobilenetv2", w.nodes, w.weights, doc, (3, size, size), {LOGITS: [1, CLASSES]})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.35, help="factor on the numbers of channels")
    parser.add_argument("--size", type=int, default=96, help="pixels of a side")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = network(args.width, args.size, args.seed)
    onnx.save(model, args.out)
    print(f"{args.out}: {parameters(model)} parameters, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
