"""From a torch module to the ONNX file of format 1, the form in which every generator is judged.

The graph holds FP16 weights and computes in FP16 between a float32 latent and uint8 pixels. The exporter would also
write down the source line behind each node, with its absolute path; that is removed, so that the bytes depend on the
weights, the metadata and the exporter's version alone.
"""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import Message
from torch import Tensor, nn

from stages.common.files import write_atomically

FORMAT = "1"
_REQUIRED = ("name", "licence", "prior", "data_hash", "input_digest")


class Levels(nn.Module):
    """A generator in FP16, from float32 latents to 8-bit levels as `gan.pixels.to_uint8` defines them.

    (z float32 [N, z_dim], label int64 [N], omitted without classes) -> uint8 [N, H, W, C].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        images = self.network(z.half()) if label is None else self.network(z.half(), label)
        levels = torch.round((images.float().clamp(-1, 1) + 1) * 127.5)  # half to even, in torch and in ONNX
        return levels.to(torch.uint8).permute(0, 2, 3, 1)


def export_module(
    module: nn.Module,
    path: Path,
    *,
    z_dim: int,
    classes: Sequence[str],
    resolution: int,
    channels: int,
    metadata: Mapping[str, Any],
    opset: int = 20,
) -> onnx.ModelProto:
    """Write `module` to `path` as one ONNX file, whole or not at all, and return the model.

    `module` maps (z [N, z_dim], label int64 [N]) to [N, C, H, W] in [-1, 1], without label if `classes` is empty; it is
    copied, not changed. `metadata` holds name, licence, prior (a share per class), data_hash and input_digest; format,
    classes and sizes are added. Raises ValueError if metadata are missing or the module does not give images of that
    size.
    """
    missing = [key for key in _REQUIRED if key not in metadata]
    if missing or len(metadata["prior"]) != len(classes):
        raise ValueError(f"metadata must hold {', '.join(_REQUIRED)}, prior one share per class; received {metadata}")
    half = Levels(copy.deepcopy(module).half().eval().requires_grad_(False))
    inputs = (torch.zeros(2, z_dim), torch.zeros(2, dtype=torch.int64))[: 2 if classes else 1]
    with torch.no_grad():
        found = list(half(*inputs).shape[1:])
    if found != [resolution, resolution, channels]:
        raise ValueError(f"the module must give images [{resolution}, {resolution}, {channels}]; it gives {found}")
    model = _translate(half, inputs, opset)
    _strip(model)
    model.producer_version = model.producer_version.split("+")[0]  # the CPU and CUDA builds of torch write the same
    own = {"format": FORMAT, "z_dim": z_dim, "classes": list(classes), "resolution": resolution, "channels": channels}
    entries = {key: value if isinstance(value, str) else _text(value) for key, value in {**metadata, **own}.items()}
    onnx.helper.set_model_props(model, dict(sorted(entries.items())))
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString(deterministic=True))
    return model


def fp16_share(model: onnx.ModelProto) -> float:
    """Share of the weights' bytes that are FP16, among all floating-point weights of a model, 0 to 1."""
    sizes = {onnx.TensorProto.FLOAT16: 0, onnx.TensorProto.FLOAT: 0, onnx.TensorProto.DOUBLE: 0}
    for tensor in model.graph.initializer:
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += onnx.numpy_helper.to_array(tensor).nbytes
    return sizes[onnx.TensorProto.FLOAT16] / max(1, sum(sizes.values()))


def _translate(half: nn.Module, inputs: tuple[Tensor, ...], opset: int) -> onnx.ModelProto:
    """The graph from torch's exporter, for batches of any size; the exporter's talk is suppressed."""
    batch = torch.export.Dim("batch")
    names = ["z", "label"][: len(inputs)]
    with _quiet():
        program = torch.onnx.export(
            half,
            inputs,
            input_names=names,
            output_names=["image"],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _strip(message: Message) -> None:
    """Remove source lines, paths and comments from a model and from everything in it, however deep."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                _strip(inner)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which prints and logs its progress and warns of its own deprecations."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
