"""What a training cannot do with what it is given: one sentence each, and what it advises works."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load, load_file, save

from gan.ranks import Ranks, gpus
from stages.config import build
from stages.config.train import TrainConfig
from stages.store import open_store
from stages.train import run
from stages.train._checkpoints import prune
from stages.train._feed import Feed
from stages.train._loop import Run
from stages.train._memory import fitting
from stages.train._processes import Processes, check_gpus, check_precision
from tests.stages.small_training import bars, small

PROJECT = Path(__file__).parents[2]
RESNET = {"name": "resnet", "generator_width": 8, "discriminator_width": 8}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store of 60 train images in `ingest/`, and its verdict."""
    bars(tmp_path)
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    return tmp_path


def train(home: Path, **changes: Any) -> Any:
    paths = {"images": home / "ingest", "passed": home / "passed.json", "out": home / "out"}
    return run(build(TrainConfig, small(**changes), "train"), **paths)


def command(home: Path, changes: dict[str, Any] | None = None, **environment: str) -> tuple[int, str]:
    """Exit code and stderr of the room as a user starts it."""
    (home / "params.yaml").write_text(yaml.safe_dump({"train": small(**changes or {})}))
    paths = {"images": home / "ingest", "passed": home / "passed.json", "params": home / "params.yaml"}
    options = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    done = subprocess.run(
        [sys.executable, "-m", "stages.train", *options, "--out", str(home / "out")],
        env=os.environ | environment, cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def crowded(home: Path, most: int, world: int = 1, **changes: Any) -> Run:
    """A run whose generator finds no memory for more than `most` images."""
    (home / "state").mkdir(exist_ok=True)
    config = build(TrainConfig, small(**changes), "train")
    found = Run(config, open_store(home / "ingest"), home / "state", Processes())
    found.processes = found.feed.processes = Processes(0, world)  # the others do not answer: trials must not ask them

    def full(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if len(given[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity")

    found.players.generator.register_forward_pre_hook(full)
    return found


def test_a_gpu_without_memory_says_which_batch_would_fit_and_that_batch_fits(home: Path) -> None:
    expected = (
        r"^GPU memory ran out at step 1 with 16 images at a time \(CUDA out of memory\): 4 would fit; "
        r"set train.parts to 4, which trains with the same batch, or train.batch to 4$"
    )
    with pytest.raises(ValueError, match=expected):
        crowded(home, 6).to_the_end()
    assert not list(home.glob("state/checkpoint-*"))  # trials leave nothing
    for advised in ({"parts": 4}, {"batch": 4}):
        found = crowded(home, 6, total_kimg=0.16, **advised)
        found.to_the_end()
        assert found.finished
        shutil.rmtree(home / "state")


def test_memory_advice_knows_processes_groups_and_batch_statistics(home: Path) -> None:
    grouped = {"name": "dcgan", "form": "upsampling", "width": 8, "embedding": 4, "norm": "none", "dropout": 0.0,
               "minibatch": "deviation", "group": 4}  # fmt: skip
    cases: list[tuple[int, int, dict[str, Any], str]] = [
        (6, 2, {}, "with 8 images at a time .*: 4 would fit; set train.parts to 2, .* or train.batch to 8$"),
        (6, 2, {"generator_batch": "shared"}, "with 8 images .*: 4 would fit; set train.batch to 8$"),
        (1, 1, {"parts": 2}, "with 8 images .*: 1 would fit; set train.parts to 16, .* or train.batch to 2$"),
        (5, 1, {"network": RESNET}, "with 16 images .*: 4 would fit; set train.batch to 4$"),
        (5, 2, {"network": RESNET}, r"lower train.batch, or use more processes, which share it$"),
        (5, 1, {"network": grouped}, "4 would fit; set train.batch to 4$"),
        (3, 1, {"network": grouped}, "not even 4 would fit; choose a smaller train.network$"),
    ]
    for most, world, changes, said in cases:
        with pytest.raises(ValueError, match=said):
            crowded(home, most, world, **changes).one_step()


def test_a_trial_that_finds_no_memory_for_a_library_of_nvidia_does_not_fit(home: Path) -> None:
    found = crowded(home, 16)
    said = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"

    def full(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if len(given[0]) > 4:
            raise RuntimeError(said)

    hook = found.players.generator.register_forward_pre_hook(full)
    assert fitting(found) == 4
    hook.remove()
    said = "CUDA error: an illegal memory access was encountered"
    found.players.generator.register_forward_pre_hook(full)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        fitting(found)


@pytest.mark.parametrize("changes", [{"batch": 64}, {"batch": 64, "balance": "classes"}])
def test_a_batch_larger_than_the_data_is_refused(home: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"train.batch must be at most the number of training images, 60; received 64"):
        train(home, **changes)


def test_a_class_of_one_image_trains_and_is_no_other_class(home: Path) -> None:
    labels = np.load(home / "ingest" / "labels-00000.npy")
    splits = np.load(home / "ingest" / "split-00000.npy")
    labels[:] = 0
    labels[np.flatnonzero(splits == 0)[0]] = 1
    np.save(home / "ingest" / "labels-00000.npy", labels)
    np.save(home / "ingest" / "labels-00001.npy", np.zeros(40, np.int64))
    for balance in ("none", "classes"):
        train(home, balance=balance, total_kimg=0.32)
        prior = json.loads((home / "out" / "generator" / "generator.json").read_text())["prior"]
        assert prior == [59 / 60, 1 / 60]


def test_sizes_that_the_networks_cannot_draw_are_refused(home: Path) -> None:
    for path in (home / "ingest").glob("images-*.npy"):
        np.save(path, np.load(path).repeat(2, axis=1).repeat(2, axis=2)[:, :12, :12])
    info = home / "ingest" / "dataset.json"
    info.write_text(info.read_text().replace('"resolution": 8', '"resolution": 12'))
    code, said = command(home)
    assert code == 1
    assert said == "train: networks draw images of 8, 16, 32, 64, 128 or 256 pixels a side; received 12\n"


def newest(home: Path) -> Path:
    return max((home / "state").glob("train/*/checkpoint-*.safetensors"))


def replaced(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> None:
    """Write another content under the name that its checksum gives it."""
    with safe_open(path, "pt") as file:
        content = save(tensors, metadata=file.metadata() | metadata)
    path.unlink()
    checksum = hashlib.sha256(content).hexdigest()[:16]
    path.with_name(f"{path.stem.rpartition('-')[0]}-{checksum}.safetensors").write_bytes(content)


def test_a_checkpoint_that_finds_no_memory_is_not_called_foreign(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice to delete it would cost the work."""
    train(home, total_kimg=0.32)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("stages.train._checkpoints._restore", full)
    with pytest.raises((torch.OutOfMemoryError, ValueError)) as error:
        train(home, total_kimg=0.64)
    assert "delete it" not in str(error.value) and "memory" in str(error.value)


def test_a_checkpoint_of_other_networks_of_a_newer_version_or_cut_short(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(home, total_kimg=0.32)
    path = newest(home)
    sound = path.read_bytes()

    replaced(newest(home), load_file(newest(home)), format="3")
    code, said = command(home)
    assert code == 1 and said == (
        f"train: {newest(home)} has format 3, this version reads 2; go on with the version that wrote it, or delete it "
        "to train anew\n"
    )

    tensors = {
        name: torch.zeros(1) if name.startswith("generator/") else t for name, t in load_file(newest(home)).items()
    }
    replaced(newest(home), tensors, format="2")
    code, said = command(home)
    assert code == 1 and said.count("\n") == 1
    assert (
        f"the checkpoint of step 20 in {newest(home).parent} is of other networks than this run's; delete it (" in said
    )

    newest(home).unlink()
    for cut in (0, 5, 1000, len(sound) - 1):
        caplog.clear()
        path.with_stem(path.stem[:-4] + "ffff").write_bytes(sound[:cut])  # a name that sorts behind the sound one's
        train(home, total_kimg=0.32)
        assert "is damaged; falling back to the checkpoint before it" in caplog.text
        (only,) = path.parent.glob("checkpoint-*")  # the damaged one is not kept in place of the sound one
        again, expected = load_file(only), load(sound)
        assert again.keys() == expected.keys() and all(torch.equal(again[name], expected[name]) for name in expected)
        only.unlink()


def test_sigterm_asks_to_be_resumed_while_the_command_starts_too(home: Path) -> None:
    (home / "params.yaml").write_text(yaml.safe_dump({"train": small()}))
    paths = {"images": home / "ingest", "passed": home / "passed.json", "params": home / "params.yaml"}
    options = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    early = (  # as soon as torch is asked for
        "import os, signal, sys, runpy\n"
        "class Early:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': sys.meta_path.remove(self); os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Early())\n"
        "runpy.run_module('stages.train', run_name='__main__')"
    )
    asked = "train: stopped by SIGTERM; run it again to go on from the last checkpoint\n"
    for processes, said in (("1", asked), ("2", "")):  # of several, the launcher or the one that ended first says why
        done = subprocess.run(
            [sys.executable, "-c", early, *options, "--out", str(home / "out")],
            cwd=PROJECT, capture_output=True, text=True, check=False, env=os.environ | {"WORLD_SIZE": processes},
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (75, "", said)


@pytest.mark.parametrize(
    "damage",
    [b"\xff" * 100, b"\xff" * 7 + b"\x7f", b"\x02" + b"\0" * 7 + b"[]", b""],
    ids=["length-overflows", "length-exceeds-memory", "header-is-a-list", "empty"],
)
def test_a_checkpoint_damaged_while_the_run_goes_on_does_not_end_it(home: Path, damage: bytes) -> None:
    train(home, total_kimg=0.32)
    path = newest(home)
    path.with_stem(path.stem.replace("-000-", "-001-")).write_bytes(damage)  # any header, of any length
    prune(path.parent, up_to=20, keep=2)
    assert path.exists()


def test_gpus_that_do_not_exist_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = command(home, CUDA_VISIBLE_DEVICES="977,GPU-0000")
    assert code == 1 and said == (
        "train: CUDA_VISIBLE_DEVICES asks for 977,GPU-0000, of which torch finds 0 on this machine; name GPUs that "
        "nvidia-smi -L lists (of MIG slices one alone), or set it to nothing to train on the CPU\n"
    )
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 2)
    for asked in ("", "-1", "NoDevFiles", "3", "0, 1", "GPU-8f,MIG-1/2"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", asked)
        check_gpus(2)
    with pytest.raises(ValueError, match="at most the number of GPUs of this machine, 2, or 0 for as many; received 3"):
        train(home, processes=3)


def test_gpus_that_the_driver_tells_of_and_torch_cannot_use_are_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 0)  # CUDA's answer where the driver is too old for it
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: 8)  # the driver's
    monkeypatch.setattr(torch.cuda, "device_count", torch.cuda._device_count_nvml)
    for world in (None, "8"):  # by itself, and under torchrun
        if world:
            monkeypatch.setenv("WORLD_SIZE", world)
        for count in (0, 8):
            with pytest.raises(
                ValueError, match=r"tells of GPUs \(8\) .* update the driver, or set CUDA_VISIBLE_DEVICES"
            ):
                train(home, processes=count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_gpus(8)


def test_of_mig_slices_a_process_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)  # the GPUs that are cut into slices
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 1)
    assert gpus() == 1
    check_gpus(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1")
    check_gpus(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1,MIG-2")
    with pytest.raises(ValueError, match=r"asks for MIG-1,MIG-2, of which torch finds 1 .*\(of MIG slices one alone"):
        check_gpus(0)


def test_a_gpu_is_refused_where_torch_has_no_kernels_for_it_or_would_imitate_bfloat16(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    for capability in ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert Ranks().device == "cuda:0"
    check_precision("bfloat16", "cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    check_precision("float32", "cuda:0")
    with pytest.raises(
        ValueError, match=r"bfloat16 needs a GPU of compute capability 8.0 .* of 7.5; set it to float32"
    ):
        train(home, precision="bfloat16")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    with pytest.raises(
        ValueError, match=r"GPU 0 is of compute capability 7.0, for which .* no kernels \(sm_75 .*\); use"
    ):
        train(home)


def test_the_thread_that_prepares_batches_is_on_the_gpu_of_its_process(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's current device is each thread's own, and the first one to begin with."""
    found = crowded(home, 16)
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append((device, threading.get_ident())))
    monkeypatch.setattr(Processes, "device", "cuda:3")
    feed = Feed(found.config, found.split, Processes(), labelled=True)
    thread = feed._thread.submit(threading.get_ident).result(timeout=60)
    feed.close()
    assert asked == [("cuda:3", thread)] and thread != threading.get_ident()
