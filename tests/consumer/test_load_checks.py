"""What is not a generator of ours is refused with one sentence, before any of it runs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from consumer import Generator
from consumer._runtime import open_session
from consumer._wire import read_metadata

pytestmark = pytest.mark.fast

FILE = Path(__file__).with_name("fixtures") / "generator-format-1.onnx"
CONTENT = FILE.read_bytes()

Change = Callable[[onnx.ModelProto], None]


def written(path: Path, change: Change) -> Path:
    """The fixture with a change, at `path`."""
    model = onnx.load_from_string(CONTENT)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def metadata(**entries: str | None) -> Change:
    """Set metadata entries; None takes one out."""

    def change(model: onnx.ModelProto) -> None:
        kept = {prop.key: prop.value for prop in model.metadata_props} | entries
        helper.set_model_props(model, {key: value for key, value in kept.items() if value is not None})

    return change


def graph_end(kind: str, name: str, dtype: int, shape: list[str | int]) -> Change:
    """Declare an input or output anew, or add it."""

    def change(model: onnx.ModelProto) -> None:
        ends = getattr(model.graph, kind)
        kept = [end for end in ends if end.name != name]
        del ends[:]
        ends.extend([*kept, helper.make_tensor_value_info(name, dtype, shape)])

    return change


def external_tensor() -> TensorProto:
    tensor = TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def outside_in_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(external_tensor())


def outside_in_constant(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Constant").attribute.add(
        name="value", type=AttributeProto.TENSOR, t=external_tensor()
    )


def outside_in_subgraph(model: onnx.ModelProto) -> None:
    graph = onnx.GraphProto(name="branch", initializer=[external_tensor()])
    model.graph.node.add(op_type="If").attribute.add(name="then_branch", type=AttributeProto.GRAPH, g=graph)


def outside_in_function(model: onnx.ModelProto) -> None:
    node = onnx.NodeProto(op_type="Constant")
    node.attribute.add(name="value", type=AttributeProto.TENSOR, t=external_tensor())
    model.functions.add(name="f", domain="d", node=[node])


def outside_in_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=external_tensor()))


def outside_by_location_alone(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


OUTSIDE = [
    outside_in_initializer,
    outside_in_constant,
    outside_in_subgraph,
    outside_in_function,
    outside_in_sparse,
    outside_by_location_alone,
]


@pytest.mark.parametrize("change", OUTSIDE)
def test_weights_outside_the_file_are_never_followed(tmp_path: Path, change: Change) -> None:
    with pytest.raises(ValueError, match="keeps weights in another file, which is never read"):
        Generator(written(tmp_path / "model.onnx", change))


def test_onnx_s_own_external_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(onnx.load(FILE), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ValueError, match="never read"):
        Generator(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a model\n",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        bytes(1000),
    ],
)
def test_other_files_are_not_onnx_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.onnx cannot be used: it is not an ONNX file") as refusal:
        Generator(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_a_folder_are_system_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Generator(tmp_path / "absent.onnx")
    with pytest.raises(IsADirectoryError):
        Generator(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for size in range(1, len(CONTENT), 331):
        path.write_bytes(CONTENT[:size])
        with pytest.raises(ValueError, match="cannot be used"):
            Generator(path)


def test_damaged_bytes_raise_nothing_but_valueerror() -> None:
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = np.frombuffer(CONTENT, np.uint8).copy()
        damaged[random.integers(0, len(damaged), 20)] = random.integers(0, 256, 20)
        damaged[random.integers(0, 60)] = random.integers(0, 256)
        try:
            read_metadata(damaged.tobytes())
        except ValueError:
            refused += 1
    assert refused > 0


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def test_graphs_nested_without_end_are_refused() -> None:
    graph = b""
    for _ in range(2000):
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(ValueError, match="nested too deeply"):
        read_metadata(b"\x08\x0a" + field(7, graph))


@pytest.mark.parametrize("tag", [b"\xea\x80\x80\x80\x10", b"\xea\x00", b"\xea\x80\x80\x80\x80\x80\x80\x80\x80\x00"])
def test_a_field_number_in_more_bits_than_protobuf_reads_hides_nothing(tag: bytes) -> None:
    """Protobuf cuts tags to 32 bits, so the first one is `external_data` (13) to it and another field to us."""
    entry = onnx.StringStringEntryProto(key="location", value="../../etc/passwd").SerializeToString()
    tensor = TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[1]).SerializeToString()
    hidden = tensor + tag + varint(len(entry)) + entry
    assert read_metadata(CONTENT + field(7, field(5, tensor)))["name"] == "fixture"
    with pytest.raises(ValueError, match="it is not an ONNX file"):
        read_metadata(CONTENT + field(7, field(5, hidden)))


def test_the_runtime_s_own_format_is_never_loaded(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(CONTENT, options, providers=["CPUExecutionProvider"])
    with pytest.raises(ValueError, match="protobuf parsing failed"):
        open_session((tmp_path / "model.ort").read_bytes(), ["CPUExecutionProvider"], 1)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": None}, "not a generator that ganops exported"),
        ({"name": None}, "not a generator that ganops exported"),
        ({"format": "2"}, "its format is '2', but this consumer reads format 1; update ganops"),
        ({"z_dim": None}, "`z_dim` must be a whole number from 1 to 999999; found ''"),
        ({"channels": "-3"}, r"`channels` must be 1 \(grey\) or 3 \(colour\); found '-3'"),
        ({"channels": "5"}, r"`channels` must be 1 \(grey\) or 3 \(colour\); found '5'"),
        ({"name": "../escaped"}, "`name` must be 1 to 63 letters, .*; found '../escaped'"),
        ({"name": "/tmp/escaped"}, "`name` must be 1 to 63 letters"),
        ({"name": ".."}, "`name` must be 1 to 63 letters"),
        ({"name": "a" * 64}, "`name` must be 1 to 63 letters"),
        ({"name": "digits\n"}, "`name` must be 1 to 63 letters"),
        ({"resolution": "8.0"}, "`resolution` must be a whole number"),
        ({"classes": None}, "`classes` must be a JSON list; found ''"),
        ({"classes": "cat, dog"}, "`classes` must be a JSON list"),
        ({"classes": json.dumps(["cat", "cat", "1"])}, "`classes` must be a list of distinct names"),
        ({"classes": json.dumps([1, 2, 3])}, "`classes` must be a list of distinct names"),
        ({"prior": json.dumps([0.5, 0.5])}, "`prior` must hold one share per class"),
        ({"prior": json.dumps([0.5, 0.5, 0.5])}, "`prior` must hold one share per class, with sum 1"),
        ({"prior": "[NaN, 0.5, 0.5]"}, "`prior` must hold one share per class"),
        ({"prior": '["a", "b", "c"]'}, "`prior` must hold one share per class"),
        ({"z_dim": "9"}, r"its inputs must be z float \[N, 9\], label int64 \[N\]; found z float \[N, 8\]"),
        ({"resolution": "16"}, r"its outputs must be image uint8 \[N, 16, 16, 3\]; found .*8, 8, 3"),
        ({"classes": "[]", "prior": "[]"}, r"its inputs must be z float \[N, 8\]; found .*label"),
    ],
)
def test_metadata_that_are_not_ours_are_refused(tmp_path: Path, entries: dict[str, str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generator(written(tmp_path / "model.onnx", metadata(**entries)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (graph_end("input", "z", TensorProto.DOUBLE, ["batch", 8]), "refuses it|its inputs must be"),
        (graph_end("input", "z", TensorProto.FLOAT, [4, 8]), r"refuses it|found .*z float \[4, 8\]"),
        (graph_end("input", "more", TensorProto.FLOAT, ["batch"]), "its inputs must be .*found .*more float"),
        (graph_end("output", "image", TensorProto.FLOAT, ["batch", 8, 8, 3]), "refuses it|its outputs must be"),
    ],
)
def test_other_inputs_and_outputs_are_refused(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generator(written(tmp_path / "model.onnx", change))


def test_an_operator_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "CallHome"

    with pytest.raises(ValueError, match=r"onnxruntime .* refuses it: .*CallHome") as refusal:
        Generator(written(tmp_path / "model.onnx", change))
    assert "\n" not in str(refusal.value)


def test_a_generator_without_labels_refuses_one(tmp_path: Path) -> None:
    def unconditional(model: onnx.ModelProto) -> None:
        metadata(classes="[]", prior="[]")(model)
        kept = [end for end in model.graph.input if end.name == "z"]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), "zero"))
        nodes = [
            helper.make_node("Shape", ["z"], ["rows"], start=0, end=1),
            helper.make_node("Expand", ["zero", "rows"], ["label"]),
        ]
        nodes += list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    generator = Generator(written(tmp_path / "model.onnx", unconditional))
    images, drawn = generator.draw(3, seed=1)
    assert drawn is None
    np.testing.assert_array_equal(images, Generator(FILE).generate(3, seed=1, label=0))
    with pytest.raises(ValueError, match="fixture draws without labels; leave the label out"):
        generator.generate(1, label=0)
