#!/usr/bin/env python3
"""Transfer learning on encrypted digits: the server encodes, the client learns.

    python models/transfer.py --fhec target/release/fhec --data DIR

The server holds an autoencoder that was trained without labels. The client encrypts digits, the
server evaluates the encoder on them, and the client trains a small classifier on the codes that it
decrypts and on labels that never leave it. This script plays both: `fhec` commands for what each of them does, and
for comparison the same classifier on codes computed in the clear. DIR holds the four idx files of MNIST.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from common import HERE, load_mnist, run, session
from torch import nn

CODE = "code"


def fhec(args, *words):
    """Run a command and return how long it took."""
    start = time.time()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([args.fhec, *map(str, words)], check=True, **quiet)
    return time.time() - start


def images_a_run(args, plan):
    """How many images a run of the plan takes."""
    told = subprocess.run([args.fhec, "explain", plan, "--json"], check=True, capture_output=True)
    return json.loads(told.stdout)["totals"]["images"]


def encrypted_codes(args, folder, images):
    """Codes of images that only their owner can read, as the client decrypts them."""
    plan, keys = folder / "encoder.plan", folder / "keys"
    np.save(folder / "digits.npy", images)
    # The server's owner, once: the encoder alone, a digit in every slot.
    fhec(
        args, "compile", HERE / "autoencoder.onnx", "--output", CODE, "--mode", "throughput",
        "--calibrate", HERE / "calibration.npy", "-o", plan,
    )  # fmt: skip
    fhec(args, "keygen", plan, "-o", keys)
    codes, seconds, most = [], 0.0, images_a_run(args, plan)
    for first in range(0, len(images), most):
        fhec(
            args, "encrypt", plan, "--secret-key", keys / "secret.key", "--input",
            folder / "digits.npy", "--skip", first, "--limit", most, "-o", folder / "x.ct",
        )  # fmt: skip
        seconds += fhec(
            args, "run", plan, "--eval-keys", keys / "eval.keys", "--input", folder / "x.ct",
            "-o", folder / "y.ct",
        )  # fmt: skip
        fhec(
            args, "decrypt", plan, "--secret-key", keys / "secret.key", "--input", folder / "y.ct",
            "-o", folder / "codes.npy",
        )  # fmt: skip
        part = np.load(folder / "codes.npy")
        codes.append(part.reshape(-1, part.shape[-1]))
    print(f"encoded {len(images)} encrypted digits in {seconds:.1f} s")
    return np.concatenate(codes).astype(np.float32)


def clear_codes(images):
    """The same codes by onnxruntime."""
    model = onnx.load(HERE / "autoencoder.onnx")
    model.graph.output.extend(v for v in model.graph.value_info if v.name == CODE)
    return run(session(model.SerializeToString()), images, CODE)


def classifier_accuracy(codes, labels, test_codes, test_labels, seed, epochs=60):
    """Train the client's classifier on codes and return its accuracy on others."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(codes.shape[1], 128), nn.ReLU(), nn.Linear(128, 10))
    x, y = torch.from_numpy(codes), torch.from_numpy(labels.astype(np.int64))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for pick in torch.randperm(len(x), generator=rng).split(64):
            loss = F.cross_entropy(net(x[pick]), y[pick])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        found = net(torch.from_numpy(test_codes)).argmax(1).numpy()
    return float((found == test_labels).mean())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fhec", default=str(HERE.parent / "target/release/fhec"))
    parser.add_argument("--data", type=Path, default=HERE.parent / "../shared/data/mnist")
    parser.add_argument("--train", type=int, default=8192, help="digits that the client learns from")
    parser.add_argument("--test", type=int, default=4096, help="digits that it is tested on")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    # Digits that the autoencoder has not seen: those of the test set, all of them the client's.
    images, labels = load_mnist(args.data, "t10k")
    order = np.random.default_rng(args.seed).permutation(len(images))
    count = min(args.train, len(images) - args.test)
    learn, test = order[:count], order[count : count + args.test]
    both = np.concatenate([learn, test])
    with tempfile.TemporaryDirectory() as folder:
        codes = encrypted_codes(args, Path(folder), images[both])
    clear = clear_codes(images[both])
    print(f"largest error of a code: {np.abs(codes - clear).max():.1e}")
    for what, found in [("decrypted", codes), ("clear", clear)]:
        accuracy = classifier_accuracy(
            found[:count], labels[learn], found[count:], labels[test], args.seed
        )
        print(f"classifier on {what} codes: {100 * accuracy:.2f} % of {len(test)} digits")


if __name__ == "__main__":
    main()
