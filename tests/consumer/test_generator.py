"""The generator class on a file of the released format 1, which must stay readable.

`fixtures/generator-format-1.onnx` was exported by `stages/export` from a small network with random weights: 8x8, three
channels, classes cat, dog and 1 with prior .5, .3, .2. `images-format-1.npy` is `generate(6, seed=5)` on the day.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from consumer import Generator
from consumer._runtime import CPU, CUDA, choose_providers, why_no_cuda
from gan.latents import labels, latents

pytestmark = pytest.mark.fast

FIXTURES = Path(__file__).with_name("fixtures")
FILE = FIXTURES / "generator-format-1.onnx"


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(FILE, providers=[CPU])


def test_format_1_stays_readable(generator: Generator) -> None:
    assert (generator.name, generator.classes, generator.prior) == ("fixture", ["cat", "dog", "1"], [0.5, 0.3, 0.2])
    assert (generator.resolution, generator.channels, generator.z_dim) == (8, 3, 8)
    assert generator.sha256 == "76ed7d598fd00260731fe409bd9c4e99718a86f8286cd65fb0b4f4fd032cbae1"
    assert generator.metadata["licence"] == "CC0-1.0"
    assert generator.provider == CPU
    golden = np.load(FIXTURES / "images-format-1.npy", allow_pickle=False)
    images = generator.generate(6, seed=5)
    assert images.dtype == np.uint8 and images.shape == golden.shape == (6, 8, 8, 3)
    assert np.abs(images.astype(int) - golden).max() <= 1  # rounding differs between processors


def test_images_are_the_graph_s_answer_to_the_shared_latents(generator: Generator) -> None:
    session = onnxruntime.InferenceSession(FILE, providers=[CPU])
    drawn = labels(9, 3, 5, [0.5, 0.3, 0.2])
    (expected,) = session.run(["image"], {"z": latents(9, 3, 5, 8), "label": drawn})
    images, given = generator.draw(5, 9, start=3)
    assert given is not None
    np.testing.assert_array_equal(given, drawn)
    assert np.abs(images.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(generator.generate(5, 9, start=3), images)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_an_image_does_not_depend_on_batch_or_start(generator: Generator, batch: int) -> None:
    whole = generator.generate(40, seed=2).astype(int)
    parts = [generator.generate(count, seed=2, start=start, batch=batch) for start, count in ((0, 13), (13, 27))]
    assert np.abs(np.concatenate(parts) - whole).max() <= 1


def test_a_call_takes_as_many_images_as_their_pixels_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, sizes = Generator(FILE, providers=[CPU]), list[int]()
    run = generator._run

    def counted(z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        sizes.append(len(z))
        return run(z, label)

    monkeypatch.setattr(generator, "_run", counted)
    whole = generator.generate(300, seed=2)
    assert sizes == [256, 44]  # 8 pixels a side
    monkeypatch.setattr("consumer._generator.at_once", lambda side: {8: 128}[side])
    images, given = generator.draw(300, seed=2)
    rendered = generator.render(latents(2, 0, 300, 8), given)
    generator.generate(300, seed=2, batch=200)
    assert sizes[2:] == [128, 128, 44] * 2 + [200, 100]
    for each in (images, rendered):
        assert np.abs(each.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("batch", [3, 256])
def test_render_draws_the_latents_it_is_given(generator: Generator, batch: int) -> None:
    z, drawn = latents(2, 0, 10, 8), labels(2, 0, 10, [0.5, 0.3, 0.2])
    whole = generator.generate(10, seed=2).astype(int)
    assert np.abs(generator.render(z, drawn, batch=batch).astype(int) - whole).max() <= 1
    backwards = generator.render(z[::-1], drawn[::-1].astype(np.int32), batch=batch)
    assert np.abs(backwards[::-1].astype(int) - whole).max() <= 1
    assert generator.render(z[:0], drawn[:0]).shape == (0, 8, 8, 3)


@pytest.mark.parametrize(
    ("z", "label", "message"),
    [
        (np.zeros((2, 7), np.float32), np.zeros(2, np.int64), r"finite numbers \[N, 8\]; received float32 \[2, 7\]"),
        (np.full((2, 8), np.nan, np.float32), np.zeros(2, np.int64), "finite"),
        (np.zeros((2, 8), np.int64), np.zeros(2, np.int64), "int64"),
        (np.zeros((2, 8), np.float32), None, "needs a label for each latent"),
        (np.zeros((2, 8), np.float32), np.zeros(3, np.int64), r"2 indices from 0 to 2; received int64 \[3\]"),
        (np.zeros((2, 8), np.float32), np.array([0, 3]), "from 0 to 2"),
        (np.zeros((2, 8), np.float32), np.array([0, -1]), "from 0 to 2"),
        (np.zeros((2, 8), np.float32), np.zeros(2), "float64"),
    ],
)
def test_render_refuses_what_does_not_fit(
    generator: Generator, z: np.ndarray, label: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generator.render(z, label)


def test_labels_steer_the_image_and_names_win_over_indices(generator: Generator) -> None:
    by_index = [generator.generate(8, seed=1, label=index) for index in range(3)]
    for name, images in zip(generator.classes, by_index, strict=True):
        np.testing.assert_array_equal(generator.generate(8, seed=1, label=name), images)  # "1" is class 2 here
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (by_index[first] != by_index[second]).any(axis=(1, 2, 3)).all()


def test_labels_follow_the_serving_prior(generator: Generator) -> None:
    drawn = generator.draw(4000, seed=0)[1]
    assert drawn is not None
    shares = np.bincount(drawn, minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=4 * np.sqrt(0.25 / 4000))


def test_no_images_are_an_empty_array(generator: Generator) -> None:
    assert generator.generate(0).shape == (0, 8, 8, 3)
    images, drawn = generator.draw(0)
    assert drawn is not None and images.shape == (0, 8, 8, 3) and drawn.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": 3}, "label must be one of the classes cat, dog, 1, or an index from 0 to 2; received 3"),
        ({"label": -1}, "label must be one of the classes"),
        ({"label": "bird"}, "received 'bird'"),
        ({"label": "0"}, "received '0'"),
        ({"label": True}, "received True"),
        ({"count": -1}, "count, start and their sum must lie in [0, 2**63); received count -1, start 0"),
        ({"count": 1.5}, "must be whole numbers; received 0, 0, 1.5"),
        ({"start": -1}, "received count 1, start -1"),
        ({"seed": -1}, "seed must lie in"),
        ({"seed": 2**64}, "seed must lie in"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_wrong_requests_are_refused(generator: Generator, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        generator.generate(**arguments)


def test_the_largest_seed_and_numpy_numbers_work(generator: Generator) -> None:
    assert generator.generate(1, seed=2**64 - 1).shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(
        generator.generate(np.int64(2), np.int64(3), np.int64(1), start=np.int64(4)),  # type: ignore[arg-type]
        generator.generate(2, 3, 1, start=4),
    )


def test_threads_and_providers_are_checked() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1; received 0"):
        Generator(FILE, threads=0)
    for wanted in (["FastProvider"], []):
        with pytest.raises(ValueError, match=r"providers must be among .*CPUExecutionProvider"):
            Generator(FILE, providers=wanted)
    assert Generator(FILE, threads=2).generate(2).shape == (2, 8, 8, 3)


def test_cuda_is_used_where_it_can_load_and_refused_by_name_where_not() -> None:
    reason = why_no_cuda()
    if reason is None:
        assert Generator(FILE).provider == CUDA
        return
    assert Generator(FILE).provider == CPU
    if CUDA in onnxruntime.get_available_providers():
        with pytest.raises(ValueError, match=r"CUDAExecutionProvider cannot be used here: .*; leave out providers"):
            Generator(FILE, providers=[CUDA, CPU])


@pytest.mark.parametrize(("major", "minor", "used"), [(7, 0, False), (7, 5, True), (9, 0, True)])
def test_a_gpu_without_kernels_is_left_for_the_cpu(
    monkeypatch: pytest.MonkeyPatch, major: int, minor: int, used: bool
) -> None:
    """Drivers that tell of a V100, where onnxruntime would load and fail at the first image, and of newer cards."""

    class Driver:
        def cuInit(self, flags: int) -> int:
            return 0

        def cuDeviceGetCount(self, count: Any) -> int:
            count._obj.value = 1
            return 0

        def cuDeviceGetAttribute(self, number: Any, attribute: int, device: int) -> int:
            number._obj.value = {75: major, 76: minor}[attribute]
            return 0

    monkeypatch.setattr("consumer._runtime.ctypes.CDLL", lambda name, **more: Driver())
    monkeypatch.setattr("consumer._runtime.onnxruntime.get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr("consumer._runtime.onnxruntime.preload_dlls", lambda: None)
    said = f"the GPU has compute capability {major}.{minor}, but onnxruntime-gpu needs 7.5 or higher"
    assert why_no_cuda() == (None if used else said)
    assert choose_providers(None) == ([CUDA, CPU] if used else [CPU])


def test_loading_and_drawing_say_nothing() -> None:
    code = f"from consumer import Generator; Generator({str(FILE)!r}).generate(2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
