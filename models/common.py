"""What the training scripts share: data, ONNX files, golden logits.

Networks are written node by node with `onnx.helper`. That keeps files small, names readable and
results independent of an exporter's version.
"""

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

HERE = Path(__file__).resolve().parent
OPSET = 17
# The first IR version that may carry opset 17.
IR_VERSION = 8
IMAGE = "image"
LOGITS = "logits"


# --- data -------------------------------------------------------------------------------------


def read_idx(path):
    """An idx file of unsigned bytes as an array."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise SystemExit(f"{path}: not an idx file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_mnist(folder, part):
    """Images (n, 1, 28, 28) as bytes and labels of `part`, "train" or "t10k"."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    return images[:, None], labels


def pixels(images):
    """Bytes as the networks want them: float32, 0..1."""
    return images.astype(np.float32) / np.float32(255)


def sample_indices(labels):
    """The first two test images of each class, by class."""
    return np.concatenate([np.flatnonzero(labels == label)[:2] for label in range(10)])


# --- ONNX -------------------------------------------------------------------------------------


def checked_model(name, nodes, weights, doc, image_shape, outputs):
    """A checked model of one image (shape without the batch) with fixed shapes.

    `outputs` maps the names of outputs to their shapes.
    """
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, [1, *image_shape])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, s) for o, s in outputs.items()],
        initializer=weights,
        doc_string=doc,
    )
    model = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="fhec-models",
    )
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def session(model):
    """An onnxruntime session of a model (bytes) on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(runner, images, output=LOGITS):
    """One output for images given as bytes, one image a run."""
    return np.concatenate([runner.run([output], {IMAGE: x[None]})[0] for x in pixels(images)])


def parameters(model):
    """Number of weights; scalars such as exponents do not count."""
    return sum(int(np.prod(w.dims)) for w in model.graph.initializer if w.dims)


# --- golden logits ----------------------------------------------------------------------------


def write_golden(path, content, fields, rows, key="logits"):
    """Write NAME.golden.json beside the model at `path`.

    `fields` say how it was measured; `rows` are outputs of the samples, float32.
    """
    # str of a float32 is its shortest exact form; float() of it prints the same digits again.
    rows = [[float(str(v)) for v in row] for row in rows]
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    head = {"model": path.name, "sha256": hashlib.sha256(content).hexdigest(), **fields}
    text = "".join(f"  {json.dumps(k)}: {json.dumps(v)},\n" for k, v in head.items())
    text = f'{{\n{text}  "{key}": [\n{lines}\n  ]\n}}\n'
    json.loads(text)
    path.with_name(f"{path.stem}.golden.json").write_text(text)


def computed_with():
    """What computes golden logits."""
    return f"onnxruntime {onnxruntime.__version__}, float32"
