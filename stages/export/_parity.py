"""How far the ONNX file is from the network that was trained, and whether FP16 can hold what flows through it.

onnxruntime on x64 CPUs computes FP16 graphs in FP32: there, the comparison sees only the rounding of the weights, and
an overflow stays hidden. So torch runs the network once more and rounds the result of every operation to FP16, like a
GPU that multiplies in FP16 and accumulates in float32: this run is the oracle for overflow, and its images show what
FP16 arithmetic changes. (torch's own FP16 on CPUs rounds in the same way, but takes thirty times as long on CPUs
without instructions for it.)
"""

import contextlib
import copy
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from consumer import Generator
from gan.latents import latents
from gan.pixels import to_uint8

FP16_LARGEST = 65504.0
FP16_WARN = 512.0  # NVIDIA's AutoCast keeps layers beyond this in FP32 by default: seven bits of headroom left


def compare_levels(reference: NDArray[np.uint8], candidate: NDArray[np.uint8]) -> dict[str, Any]:
    """Differences between two sets of images uint8 [N, H, W, C] in 8-bit levels, over all and in the worst image.

    `share_changed` is the share of values that differ at all; the worst image has the largest mean difference.
    """
    difference = np.abs(reference.astype(np.int16) - candidate).reshape(len(reference), -1)
    means = difference.mean(axis=1, dtype=np.float64)
    worst = int(means.argmax())
    return {
        "max_levels": int(difference.max()),
        "mean_levels": float(means.mean()),
        "share_changed": float((difference > 0).mean(dtype=np.float64)),
        "worst": {"image": worst, "max_levels": int(difference[worst].max()), "mean_levels": float(means[worst])},
    }


def compared(network: nn.Module, generator: Generator, *, count: int, seed: int, batch: int) -> dict[str, Any]:
    """The ONNX file, and torch in FP16, against torch in float32, on images 0 ... count - 1 of `seed`."""
    shipped, drawn = generator.draw(count, seed, batch=batch)
    z = latents(seed, 0, count, generator.z_dim)
    trained = draw(network, z, drawn, batch)
    half = draw(_rounded(network), z, drawn, batch, half=True)
    return {
        "onnx": {**compare_levels(trained, shipped), "arithmetic": arithmetic(generator.provider)},
        "torch_fp16": {**compare_levels(trained, half), "arithmetic": "float16"},
    }


class _Rounding(TorchFunctionMode):
    """Rounds every operation's result to FP16, but keeps it in float32."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = function(*args, **(kwargs or {}))
        return _to_half(answer) if isinstance(answer, Tensor) and answer.dtype is torch.float32 else answer


def _to_half(values: Tensor) -> Tensor:
    return values.half().float()


@torch.no_grad()
def _rounded(network: nn.Module) -> nn.Module:
    """A copy of the network with its weights rounded to FP16, but kept in float32."""
    copied = copy.deepcopy(network)
    for tensor in (*copied.parameters(), *copied.buffers()):
        if tensor.is_floating_point():
            tensor.copy_(_to_half(tensor))
    return copied


@torch.no_grad()
def draw(
    network: nn.Module, z: NDArray[np.float32], labels: NDArray[np.int64] | None, batch: int, *, half: bool = False
) -> NDArray[np.uint8]:
    """Images uint8 [N, H, W, C] of a torch network, in FP16 if `half`; NaN pixels from overflow are mid grey."""
    parts = []
    for first in range(0, len(z), batch):
        inputs = [torch.from_numpy(z[first : first + batch])]
        if labels is not None:
            inputs.append(torch.from_numpy(labels[first : first + batch]))
        with _Rounding() if half else contextlib.nullcontext():
            images = network(_to_half(inputs[0]) if half else inputs[0], *inputs[1:])
        parts.append(to_uint8(images.nan_to_num().numpy()))
    return np.concatenate(parts)


@torch.no_grad()
def probe(network: nn.Module, z: NDArray[np.float32], labels: NDArray[np.int64] | None, batch: int) -> dict[str, Any]:
    """Run the network in FP16 and look at the output of every layer.

    Returns `non_finite` (their number, over all layers), `largest` (finite absolute activation, by layer) and `close`
    (layers beyond 512, as a warning: FP16 ends at 65504).
    """
    half = _rounded(network)
    lost = [0]
    largest: dict[str, float] = {}

    def look(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                finite = torch.isfinite(output)
                lost[0] += int((~finite).sum())
                peak = float(output.abs().where(finite, 0).max())
                largest[name] = max(peak, largest.get(name, 0.0))

        return hook

    for name, module in half.named_modules():
        module.register_forward_hook(look(name or "(whole)"))
    draw(half, z, labels, batch, half=True)
    close = sorted(name for name, peak in largest.items() if peak > FP16_WARN)
    return {"non_finite": lost[0], "largest": largest, "close": close}


def arithmetic(provider: str) -> str:
    """`float16` if `provider` multiplies FP16 matrices in FP16, `weights only` if it widens them first.

    This is found by having it compute 60000 * 4 / 4 in two matrix products: FP16 ends at 65504.
    """
    weights = [numpy_helper.from_array(np.full((1, 1), value, np.float16), f"w{value}") for value in (4.0, 0.25)]
    nodes = [helper.make_node("MatMul", ["x", "w4.0"], ["h"]), helper.make_node("MatMul", ["h", "w0.25"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 1]) for name in "xy"]
    graph = helper.make_graph(nodes, "probe", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[provider])
    return "weights only" if np.isfinite(session.run(None, {"x": np.full((1, 1), 60000, np.float16)})[0]) else "float16"
