"""The exporter on modules whose answer is known exactly, and the arithmetic of the parity report."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from consumer import Generator
from gan.latents import latents
from gan.pixels import to_float, to_uint8
from stages.export._onnx import _strip, export_module, fp16_share
from stages.export._parity import arithmetic, compare_levels, probe

ABOUT = {"name": "known", "licence": "CC0-1.0", "data_hash": "d" * 64, "input_digest": "e" * 64}


class Stored(nn.Module):
    """Draws stored images: the nearest of M keys to the first four latents, then that key's entry of the store."""

    keys: Tensor  # [M, 4]
    index: Tensor  # int64 [M]
    store: Tensor  # [K, C, H, W]

    def __init__(self, keys: Tensor, index: Tensor, store: Tensor) -> None:
        super().__init__()
        self.register_buffer("keys", keys)
        self.register_buffer("index", index)
        self.register_buffer("store", store)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        distances = ((z[:, None, :4] - self.keys) ** 2).sum(-1)
        chosen = self.index[distances.argmin(1)]
        return self.store[chosen if label is None else label]


class Ramp(nn.Module):
    """The latents themselves as pixels."""

    def forward(self, z: Tensor) -> Tensor:
        return z.reshape(-1, 1, 8, 8)


class Loud(nn.Module):
    """Twice: a layer that answers 40000 times its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.first.weight, 40000.0)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.first(z.reshape(-1, 1, 1, 2)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_store_of_images_comes_out_level_for_level(tmp_path: Path, channels: int) -> None:
    """Every level of every pixel, and the key that numpy finds nearest in FP16."""
    random = np.random.default_rng(channels)
    images = random.integers(0, 256, (300, 8, 8, channels), dtype=np.uint8)
    images[:4] = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    keys = random.standard_normal((512, 4)).astype(np.float16)
    index = random.permutation(np.arange(512) % 300)
    module = Stored(torch.from_numpy(keys), torch.from_numpy(index), torch.from_numpy(to_float(images)))
    path = tmp_path / "stored.onnx"
    model = export_module(
        module, path, z_dim=6, classes=[], resolution=8, channels=channels, metadata={**ABOUT, "prior": []}
    )
    assert module.store.dtype == torch.float32  # the caller's module is left as it was
    assert fp16_share(model) > 0.99
    drawn = Generator(path).generate(1000, seed=1)
    z = latents(1, 0, 1000, 6)[:, None, :4].astype(np.float16).astype(np.float64)
    distances = ((z - keys) ** 2).sum(-1)
    two = np.sort(distances, axis=1)[:, :2]
    clear = two[:, 1] - two[:, 0] > 0.05  # FP16 may take either of two keys that are nearly as near
    assert clear.mean() > 0.6
    np.testing.assert_array_equal(drawn[clear], images[index[distances.argmin(1)]][clear])
    known = {image.tobytes() for image in images}
    assert all(image.tobytes() in known for image in drawn)


def test_a_label_chooses_and_all_levels_survive(tmp_path: Path) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    module = Stored(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), torch.from_numpy(to_float(images)))
    metadata = {**ABOUT, "prior": [0.25] * 4}
    path = tmp_path / "stored.onnx"
    export_module(module, path, z_dim=4, classes=["a", "b", "c", "d"], resolution=8, channels=1, metadata=metadata)
    generator = Generator(path)
    for label in range(4):
        np.testing.assert_array_equal(generator.generate(3, 0, label), images[[label] * 3])


def test_pixels_are_rounded_as_gan_pixels_rounds_them(tmp_path: Path) -> None:
    """All halves between levels that FP16 can hold, values outside [-1, 1], and a dense ramp."""
    ties = ((np.arange(255) + 0.5) / 127.5 - 1).astype(np.float16)
    ramp = np.linspace(-1.5, 1.5, 64 * 64).astype(np.float16)
    z = np.resize(np.concatenate([ties, ramp, [np.inf, -np.inf]]), (72, 64)).astype(np.float32)
    path = tmp_path / "ramp.onnx"
    export_module(Ramp(), path, z_dim=64, classes=[], resolution=8, channels=1, metadata={**ABOUT, "prior": []})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (levels,) = session.run(["image"], {"z": z})
    clipped = np.clip(z, -2, 2).reshape(-1, 1, 8, 8)
    np.testing.assert_array_equal(levels, to_uint8(clipped))
    assert set(np.unique(levels)) == set(range(256))


@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_any_batch_runs(tmp_path: Path, count: int) -> None:
    path = tmp_path / "ramp.onnx"
    export_module(Ramp(), path, z_dim=64, classes=[], resolution=8, channels=1, metadata={**ABOUT, "prior": []})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"z": np.zeros((count, 64), np.float32)})[0].shape == (count, 8, 8, 1)
    assert session.get_inputs()[0].shape == ["batch", 64]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": ABOUT}, "metadata must hold name, licence, prior, data_hash, input_digest"),
        ({"metadata": {**ABOUT, "prior": [1.0]}}, "prior one share per class"),
        ({"resolution": 16}, r"the module must give images \[16, 16, 1\]; it gives \[8, 8, 1\]"),
        ({"channels": 3}, r"must give images \[8, 8, 3\]"),
    ],
)
def test_modules_and_metadata_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    request: dict[str, Any] = {"z_dim": 64, "classes": [], "resolution": 8, "channels": 1, **changes}
    request.setdefault("metadata", {**ABOUT, "prior": []})
    with pytest.raises(ValueError, match=message):
        export_module(Ramp(), tmp_path / "ramp.onnx", **request)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fast
def test_traces_are_stripped_wherever_they_hide() -> None:
    def traced(item: Any) -> Any:
        item.doc_string = "/home/someone/secret.py"
        item.metadata_props.add(key="stack_trace", value="/home/someone/secret.py, line 1")
        return item

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    inner = traced(helper.make_graph([traced(helper.make_node("Identity", ["x"], ["y"]))], "inner", [], [value]))
    node = traced(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner))
    weight = traced(helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]))
    constant = traced(helper.make_node("Constant", [], ["k"], value=weight))
    graph = traced(
        helper.make_graph([node], "g", [traced(value)], [traced(value)], [weight], value_info=[traced(value)])
    )
    function = traced(onnx.FunctionProto(name="f", node=[node, constant], value_info=[traced(value)]))
    model = traced(helper.make_model(graph, functions=[function]))
    assert model.SerializeToString().count(b"secret") > 20
    _strip(model)
    assert b"secret" not in model.SerializeToString()


@pytest.mark.fast
def test_levels_are_compared_over_all_and_in_the_worst_image() -> None:
    reference = np.full((4, 2, 2, 1), 100, np.uint8)
    candidate = reference.copy()
    candidate[1, 0, 0, 0] = 97  # lower: must not wrap around as uint8 would
    candidate[2, :, 0, 0] = 102
    assert compare_levels(reference, candidate) == {
        "max_levels": 3,
        "mean_levels": 7 / 16,
        "share_changed": 3 / 16,
        "worst": {"image": 2, "max_levels": 2, "mean_levels": 1.0},
    }
    extremes = compare_levels(np.zeros((1, 1, 1, 1), np.uint8), np.full((1, 1, 1, 1), 255, np.uint8))
    assert extremes["max_levels"] == 255


@pytest.mark.fast
def test_the_probe_counts_what_leaves_fp16() -> None:
    z = np.array([[1.0, -1.0], [1.7, 0.5], [-3.0, 2.0]], np.float32)  # 1.7, -3 and 2 times 40000 exceed 65504
    found = probe(Loud(), z, None, batch=2)
    assert found["non_finite"] == 3  # tanh brings infinities back to 1, so only the layer's own output shows them
    assert found["largest"]["first"] == pytest.approx(40000, rel=1e-3) and found["close"] == ["first"]


@pytest.mark.fast
def test_the_arithmetic_of_the_cpu_is_found_by_asking() -> None:
    """On x64 onnxruntime widens FP16 to FP32; on ARM it may have kernels of its own."""
    import platform

    found = arithmetic("CPUExecutionProvider")
    assert found == "weights only" if platform.machine() == "x86_64" else found in ("weights only", "float16")
