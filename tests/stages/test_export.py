"""The export room on networks with random weights, through its front door."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load, save_file
from torch import nn

from consumer import Generator
from gan.latents import latents
from gan.networks import build_generator, initialise
from gan.pixels import to_uint8
from stages.common.files import read_json, sha256_file, write_json
from stages.config import load_section
from stages.config.export import ExportConfig, Training, Uniform
from stages.export import run
from stages.generator_folder import input_digest
from tests.stages import summarised_run

ROOT = Path(__file__).parents[2]
PARAMS = """
export:
  name: toy
  prior: {name: uniform}
  opset: 20
  parity_images: 32
  parity_seed: 3
  parity_stretch: 3.0
  parity_max_levels: 2
  parity_mean_levels: 0.1
  parity_share_changed: 0.1
  batch: 10
  threads: 1
"""


def make_generator(folder: Path, *, classes: list[str], channels: int = 1, gain: float = 1.0) -> nn.Module:
    """A generator's folder as train writes it; `gain` scales the first layer."""
    folder.mkdir(parents=True)
    architecture = {
        "name": "r3gan",
        "arguments": {"widths": [12, 8], "blocks": [1, 1], "embedding": 4, "projection": 4},
    }
    network = build_generator(architecture, z_dim=8, classes=len(classes), resolution=8, channels=channels)
    randomness = torch.Generator().manual_seed(len(classes))
    initialise("r3gan", network, randomness)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=randomness) * 0.05)
        network.get_parameter("base.weight").mul_(gain)
    save_file(network.state_dict(), folder / "generator.safetensors")
    description: dict[str, Any] = {
        "format": 1,
        "architecture": architecture,
        "z_dim": 8,
        "classes": classes,
        "resolution": 8,
        "channels": channels,
        "data_hash": "d" * 64,
        "prior": [share / 10 for share in (1, 2, 7)][: len(classes)],
        "licence": "CC BY 4.0",
    }
    write_json(folder / "generator.json", description)
    return network.eval()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExportConfig:
    params = tmp_path_factory.mktemp("params") / "params.yaml"
    params.write_text(PARAMS)
    return load_section(ExportConfig, params, "export")


@dataclasses.dataclass
class Exported:
    network: nn.Module
    generator: Path
    out: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, config: ExportConfig) -> Exported:
    """A conditional grey generator, exported once."""
    folder = tmp_path_factory.mktemp("export")
    network = make_generator(folder / "generator", classes=["a", "b", "c"])
    run(config, generator=folder / "generator", out=folder / "out")
    return Exported(network, folder / "generator", folder / "out")


def test_the_file_draws_what_the_network_draws(exported: Exported) -> None:
    generator = Generator(exported.out / "generator.onnx")
    z = latents(11, 0, 60, 8)
    for label in range(3):
        with torch.no_grad():
            expected = to_uint8(exported.network(torch.from_numpy(z), torch.full((60,), label)).numpy())
        difference = np.abs(generator.generate(60, 11, label).astype(int) - expected)
        assert expected.std() > 20  # a picture, not a plane that anything agrees with
        assert difference.max() <= 1 and (difference > 0).mean() < 0.1


def test_metadata_say_what_it_is_and_nothing_else(exported: Exported) -> None:
    generator = Generator(exported.out / "generator.onnx")
    summary = read_json(exported.out / "summary.json")
    digest = summary["results"]["input_digest"]
    assert generator.metadata == {
        "format": "1",
        "name": "toy",
        "licence": "CC BY 4.0",
        "z_dim": "8",
        "classes": '["a", "b", "c"]',
        "prior": json.dumps([1 / 3] * 3),
        "resolution": "8",
        "channels": "1",
        "data_hash": "d" * 64,
        "input_digest": digest,
    }
    assert summary["results"]["generator"] == {
        "name": "toy", "licence": "CC BY 4.0", "classes": ["a", "b", "c"], "resolution": 8, "channels": 1, "z_dim": 8,
    }  # fmt: skip
    assert summary["results"]["onnx_sha256"] == generator.sha256 == sha256_file(exported.out / "generator.onnx")


def test_the_input_digest_follows_both_files(tmp_path: Path, exported: Exported) -> None:
    digests = {input_digest(exported.generator)}
    for name in ("generator.safetensors", "generator.json"):
        copy = tmp_path / name
        copy.mkdir()
        for file in ("generator.safetensors", "generator.json"):
            content = (exported.generator / file).read_bytes()
            (copy / file).write_bytes(content + b" " * (file == name))
        digests.add(input_digest(copy))
    assert len(digests) == 3


def test_weights_are_fp16_and_no_trace_of_this_machine_is_left(exported: Exported) -> None:
    content = (exported.out / "generator.onnx").read_bytes()
    for trace in (str(ROOT), str(Path.home()), sys.prefix, ".py", "site-packages", "stack_trace", "pkg.torch", "+c"):
        assert trace.encode() not in content, trace
    model = onnx.load_from_string(content)
    floats = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert all(np.prod(tensor.dims) == 1 for tensor in floats.values())  # clip and scale
    wide = [node.op_type for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(wide) == 8  # the network itself is there, layer by layer
    facts = read_json(exported.out / "parity.json")["file"]
    assert facts["bytes"] == len(content) and 0.99 < facts["fp16_share"] < 1


def test_another_process_elsewhere_writes_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    arguments = ["--generator", str(exported.generator), "--params", "params.yaml", "--out", "again"]
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.export", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")  # the exporter says nothing
    assert json.loads(done.stdout) == {"stage": "export", "summary": "again/summary.json"}
    names = ["generator.onnx", "parity.json", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (exported.out / name).read_bytes(), name


def test_parity_is_reported_with_its_protocol(exported: Exported) -> None:
    parity, results = (read_json(exported.out / name) for name in ("parity.json", "summary.json"))
    measures, protocols = results["results"]["measures"], results["results"]["protocols"]
    assert set(measures) == {"parity_max_levels", "parity_mean_levels", "parity_share_changed", "overflow"}
    for name in ("max_levels", "mean_levels", "share_changed"):
        found = measures[f"parity_{name}"]
        assert found["value"] == found["low"] == found["high"] == parity["onnx"][name]
        assert found["n_fake"] == 32 and protocols[found["protocol"]]["arithmetic"] == parity["onnx"]["arithmetic"]
    assert measures["overflow"]["value"] == 0 and measures["overflow"]["n_fake"] == 64
    assert parity["onnx"]["worst"]["mean_levels"] >= parity["onnx"]["mean_levels"]
    assert parity["torch_fp16"]["max_levels"] <= 2
    assert parity["overflow"]["largest"]["stages.0.0"] > 0  # sums of residual blocks count as layers


def test_colour_without_labels_and_the_training_prior(tmp_path: Path, config: ExportConfig) -> None:
    network = make_generator(tmp_path / "plain", classes=[], channels=3)
    run(config, generator=tmp_path / "plain", out=tmp_path / "out")
    generator = Generator(tmp_path / "out" / "generator.onnx")
    assert (generator.classes, generator.prior, generator.channels) == ([], [], 3)
    images, drawn = generator.draw(9, seed=4)
    with torch.no_grad():
        expected = to_uint8(network(torch.from_numpy(latents(4, 0, 9, 8))).numpy())
    assert drawn is None and np.abs(images.astype(int) - expected).max() <= 1

    make_generator(tmp_path / "labelled", classes=["x", "y", "z"])
    served = dataclasses.replace(config, prior=Training(name="training"))
    run(served, generator=tmp_path / "labelled", out=tmp_path / "out")
    assert Generator(tmp_path / "out" / "generator.onnx").prior == [0.1, 0.2, 0.7]
    assert config.prior == Uniform(name="uniform")


@pytest.mark.parametrize(("classes", "channels"), [(["a", "b", "c"], 1), ([], 3)])
def test_what_card_and_docs_say_of_the_use_runs(
    tmp_path: Path, config: ExportConfig, monkeypatch: pytest.MonkeyPatch, classes: list[str], channels: int
) -> None:
    make_generator(tmp_path / "generator", classes=classes, channels=channels)
    made = summarised_run.Run(tmp_path)
    run(config, generator=tmp_path / "generator", out=tmp_path / "out")
    exported = read_json(tmp_path / "out" / "summary.json")
    made.summaries["export"]["results"]["generator"] = exported["results"]["generator"]
    made.write().card()
    monkeypatch.chdir(tmp_path / "out")
    snippets = fenced(made.text())
    assert [snippet.split()[1] for snippet in snippets] == ["consumer", "numpy"]
    if classes:
        snippets.append(next(each for each in fenced((ROOT / "docs/consumer.md").read_text()) if "onnxruntime" in each))
    for snippet in snippets:
        names: dict[str, Any] = {}
        exec(snippet, names)  # noqa: S102
        assert names["images"].dtype == np.uint8 and names["images"].shape == (16, 8, 8, channels)
        if "z" in names:
            expected = Generator("generator.onnx").render(names["z"], names.get("label"))
            np.testing.assert_array_equal(names["images"], expected)


def fenced(text: str) -> list[str]:
    """The blocks of Python in a page."""
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_what_is_out_of_tolerance_fails_and_leaves_the_old_file(
    exported: Exported, config: ExportConfig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "generator.onnx").write_text("was here")
    strict = dataclasses.replace(config, parity_share_changed=0.0)
    with pytest.raises(ValueError, match=r"share_changed is 0\.0\d+, export\.parity_share_changed allows 0;"):
        run(strict, generator=exported.generator, out=out)
    make_generator(tmp_path / "loud", classes=["a", "b", "c"], gain=3e4)
    with pytest.raises(
        ValueError, match=r"\d+ values leave the range of FP16 \(largest 65504\) on latents stretched up"
    ):
        run(config, generator=tmp_path / "loud", out=out)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]
    assert (out / "generator.onnx").read_text() == "was here"


def test_layers_that_come_close_to_overflow_are_named(
    config: ExportConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_generator(tmp_path / "loud", classes=["a", "b", "c"], gain=300)
    lax = dataclasses.replace(config, parity_max_levels=255, parity_mean_levels=255.0, parity_share_changed=1.0)
    run(lax, generator=tmp_path / "loud", out=tmp_path / "out")
    overflow = read_json(tmp_path / "out" / "parity.json")["overflow"]
    assert "base" in overflow["close"] and 512 < overflow["largest"]["base"] < 65504
    assert "export: values beyond 512 (FP16 ends at 65504): base " in capsys.readouterr().err


def spoil(folder: Path, what: str) -> None:
    weights, description = folder / "generator.safetensors", read_json(folder / "generator.json")
    tensors = load(weights.read_bytes())  # a mapped file must not be overwritten
    match what:
        case "no weights":
            weights.unlink()
        case "no description":
            (folder / "generator.json").unlink()
            return
        case "pickle in disguise":
            torch.save(tensors, weights)
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "one tensor short":
            del tensors["base.bias"]
            save_file(tensors, weights)
        case "one tensor more":
            save_file({**tensors, "extra": torch.zeros(1)}, weights)
        case "another shape":
            description["z_dim"] = 9
        case "not finite":
            tensors["base.bias"][0] = float("nan")
            save_file(tensors, weights)
        case "no licence":
            del description["licence"]
        case "unknown network":
            description["architecture"]["name"] = "r4gan"
        case "newer":
            description["format"] = 2
    write_json(folder / "generator.json", description)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no weights", "is not a generator: it holds no generator.safetensors; run `python -m stages.train`"),
        ("no description", "is not a generator: it holds no generator.json"),
        ("pickle in disguise", "does not hold the weights of generator.json"),
        ("cut", "does not hold the weights of generator.json"),
        ("one tensor short", r'Missing key\(s\) in state_dict: "base.bias"'),
        ("one tensor more", r'Unexpected key\(s\) in state_dict: "extra"'),
        ("another shape", "size mismatch for base.weight"),
        ("not finite", "holds weights that are not finite: base.bias; train again"),
        ("no licence", "licence must be a str; found None"),
        ("unknown network", "network name must be one of .*r3gan.*; received 'r4gan'"),
        ("newer", "must be a JSON object with format 1; found 2"),
    ],
)
def test_what_is_not_a_generator_s_folder_is_refused(
    tmp_path: Path, config: ExportConfig, what: str, message: str
) -> None:
    make_generator(tmp_path / "generator", classes=["a", "b"])
    spoil(tmp_path / "generator", what)
    with pytest.raises(ValueError, match=message) as refusal:
        run(config, generator=tmp_path / "generator", out=tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("name: toy", "name: my toy", "export: name must be 1 to 63 letters, .* received 'my toy'"),
        ("name: toy", "name: ../toy", "export: name must be"),
        ("{name: uniform}", "{name: unifrom}", r"export.prior.name must be one of .*did you mean `uniform`"),
        ("opset: 20", "opset: 12", "export.opset must be a number >= 18 and <= 24; received 12"),
        ("parity_images: 32", "parity_images: 0", "export.parity_images must be a number >= 1 .*; received 0"),
        ("parity_stretch: 3.0", "parity_strech: 3.0", "export.parity_strech is not a setting .*parity_stretch"),
    ],
)
def test_settings_are_checked(tmp_path: Path, line: str, instead: str, message: str) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(PARAMS.replace(line, instead))
    with pytest.raises(ValueError, match=message):
        load_section(ExportConfig, params, "export")
