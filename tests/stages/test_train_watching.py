"""What can be watched of a run: event files that TensorBoard reads, samples over time as a sheet and an animation."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stages.config import build
from stages.config.train import TrainConfig
from stages.store import open_store
from stages.train import run
from stages.train._loop import Run
from stages.train._meter import Meter
from stages.train._processes import Processes
from stages.train._progress import write_progress
from stages.train._samples import samples
from tests.stages.small_training import bars, small


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's own reader
def test_tensorboard_reads_numbers_pictures_histograms_and_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    store, passed = bars(tmp_path), tmp_path / "passed.json"
    for kimg in (0.48, 0.96):  # 30 steps, then 30 more: the second writer goes on where the first stopped
        config = build(TrainConfig, small(tensorboard=True, total_kimg=kimg), "train")
        watched = run(config, images=store, passed=passed, out=tmp_path / "watched")
    (folder,) = (tmp_path / "state").glob("train/*/tensorboard")
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0}).Reload()
    tags = events.Tags()
    assert [event.step for event in events.Scalars("train/loss_d")] == [20, 30, 40, 60]
    assert {"train/images_per_second", "train/loss_g", "train/gradient_real"} <= set(tags["scalars"])
    assert {tag for tag in tags["scalars"] if "lr" in tag} == {"schedule/lr_d", "schedule/lr_g"}
    assert tags["graph"] and {event.step for event in events.Images("samples")} >= {15, 30, 60}
    for side in ("generator", "discriminator"):
        for kind in ("weights", "gradients"):
            names = [name for name in tags["histograms"] if name.startswith(f"{side}.{kind}/")]
            assert len(names) > 3 and events.Histograms(names[0])[-1].histogram_value.num > 0

    # Watching changes nothing.
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "unwatched-state"))
    config = build(TrainConfig, small(), "train")
    assert run(config, images=store, passed=passed, out=tmp_path / "unwatched").outputs == watched.outputs


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's own reader
@pytest.mark.parametrize("end", [KeyboardInterrupt, FloatingPointError])
def test_event_files_have_all_that_was_seen_before_a_run_was_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    """Also before it went back: both writers, whose thread dies with the process, are closed."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    opened: list[SummaryWriter] = []

    class Noted(SummaryWriter):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            opened.append(self)

    def step(run: Run) -> dict[str, torch.Tensor]:
        if run.control.attempt and run.step == 50:
            raise end
        terms = one_step(run)
        return terms | {"loss_g": torch.tensor(2000.0)} if (run.control.attempt, run.step) == (0, 40) else terms

    one_step = Run.one_step
    monkeypatch.setattr(Run, "one_step", step)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", Noted)
    changes = {"tensorboard": True, "rollbacks": {"most": 1, "reseed": True, "lr_factor": 0.5}}
    with pytest.raises(end):
        run(
            build(TrainConfig, small(**changes), "train"),
            images=bars(tmp_path), passed=tmp_path / "passed.json", out=tmp_path / "out",
        )  # fmt: skip
    (folder,) = (tmp_path / "state").glob("train/*/tensorboard")
    scalars, both = [], sorted(folder.glob("events.*"))
    for path in both:
        found = EventAccumulator(str(path)).Reload()
        scalars.append([event.step for event in found.Scalars("train/loss_d")])
        assert ("divergence/text_summary" in found.Tags()["tensors"]) == (path == both[0])
    assert scalars == [[20], [40]]
    assert [writer.all_writers for writer in opened] == [None, None]


def test_what_the_schedules_gave_a_step_is_logged_also_after_a_rollback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))

    def step(run: Run) -> dict[str, torch.Tensor]:
        terms = one_step(run)
        return terms | {"loss_g": torch.tensor(2000.0)} if (run.control.attempt, run.step) == (0, 40) else terms

    one_step = Run.one_step
    monkeypatch.setattr(Run, "one_step", step)
    optimizers = {"generator": {"name": "rmsprop", "factor": 0.5}, "discriminator": {"name": "adam", "factor": 1.0}}
    changes = {
        "burn_in_kimg": 0.32, "lr": 0.002, "lr_final": 0.0005, "lr_kimg": 0.32, "beta2": 0.9, "ema_ramp": 1.0,
        "ema_halflife_start_kimg": 0.1, "ema_halflife_kimg": 0.3, "instance_noise": 0.2, "optimizers": optimizers,
        "augmentation": {"name": "scheduled", "strength": 0.4, "strength_final": 0.1, "transforms": ["shift"]},
        "rollbacks": {"most": 1, "reseed": True, "lr_factor": 0.5},
    }  # fmt: skip
    run(
        build(TrainConfig, small(**changes), "train"),
        images=bars(tmp_path), passed=tmp_path / "passed.json", out=tmp_path / "out",
    )  # fmt: skip
    (log,) = (tmp_path / "state").glob("train/*/log.jsonl")
    first, *_, last = (row for row in map(json.loads, log.read_text().splitlines()) if "loss_d" in row)
    ends = {
        "lr_d": (0.002, 0.0005), "lr_g": (0.001, 0.00025), "beta2": (0.9, 0.99), "gamma_r1": (1.0, 0.1),
        "gamma_r2": (1.0, 0.1), "ema_halflife_kimg": (0.1, 0.3), "augmentation": (0.4, 0.1), "instance_noise": (0.2, 0),
    }  # fmt: skip
    assert (first["step"], last["step"]) == (20, 60)
    for name, (start, end) in ends.items():
        near = end + (start - end) * (1 + math.cos(math.pi * 19 / 20)) / 2
        assert first[name] == pytest.approx(near), name
        assert last[name] == pytest.approx(end * (0.5 if name.startswith("lr") else 1)), name
    assert "lr_d" not in (tmp_path / "out" / "curves.csv").read_text()


def test_pictures_are_drawn_as_many_at_once_as_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are the same: what a network of this size draws does not hang on how many it draws."""
    found = []
    for size in (256, 3):
        drawn = []
        monkeypatch.setenv("GANOPS_STATE", str(tmp_path / f"state-{size}"))
        monkeypatch.setattr("gan.pixels.at_once", lambda resolution, size=size: size)
        state = tmp_path / f"state-{size}"
        state.mkdir()
        store = bars(tmp_path) if size == 256 else tmp_path / "ingest"
        training = Run(build(TrainConfig, small(), "train"), open_store(store), state, Processes())
        training.players.average.register_forward_pre_hook(lambda _, z, drawn=drawn: drawn.append(len(z[0])))
        found.append(samples(training, 16))
        assert max(drawn) <= size and sum(drawn) == 16
    assert np.array_equal(*found)


def test_a_discriminator_that_compares_images_can_be_watched_and_snapshots_may_lie_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    network = {
        "name": "dcgan", "form": "upsampling", "width": 8, "embedding": 4, "norm": "none", "dropout": 0.0,
        "minibatch": "discrimination", "group": 8,
    }  # fmt: skip
    config = build(TrainConfig, small(tensorboard=True, network=network, snapshot_kimg=0.32), "train")
    run(config, images=bars(tmp_path), passed=tmp_path / "passed.json", out=tmp_path / "out")
    found = sorted(path.name for path in (tmp_path / "out").glob("samples-*.png"))
    assert found == [f"samples-{kimg}.png" for kimg in ("000000.320", "000000.640", "000000.960")]


def test_a_gpu_whose_driver_does_not_tell_its_load_trains_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here there is none at all, so that the question about its memory is the only one that must be answered."""
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 2**20)
    monkeypatch.setattr("torch.cuda.max_memory_reserved", lambda: 3 * 2**20)
    line = Meter(tmp_path, "cuda:0").look({"step": 20.0}, waited=0.0)
    assert line["memory_mib"] == 1.0 and line["memory_reserved_mib"] == 3.0 and "utilisation" not in line
    monkeypatch.setattr("torch.cuda.utilization", lambda: 83)
    assert Meter(tmp_path, "cuda:0").look({"step": 40.0}, waited=0.0)["utilisation"] == 0.83


def test_the_meter_tells_what_a_thousand_images_take_and_how_busy_the_gpu_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 2**20)
    meter = Meter(tmp_path, "cuda:0")
    for number, share in enumerate((70, 90), start=1):
        monkeypatch.setattr("torch.cuda.utilization", lambda share=share: share)
        now = meter.looked + 5.0
        monkeypatch.setattr("time.perf_counter", lambda now=now: now)
        meter.images += 2000
        line = meter.look({"step": 20.0 * number}, waited=1.0 * number)
        assert line["seconds_per_kimg"] == 2.5 and line["images_per_second"] == 400.0
    assert ", 2.50 s per kimg, 20.0 % of it waiting for data, the GPU busy 80 %, 1 MiB at most" in meter.total(
        waited=2.0
    )
    monkeypatch.setattr("torch.cuda.utilization", lambda: 1 / 0)
    silent = Meter(tmp_path, "cuda:0")
    silent.look({"step": 20.0}, waited=0.0)
    assert "busy" not in silent.total(waited=0.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_has_a_row_a_moment_and_the_animation_a_frame(tmp_path: Path, channels: int) -> None:
    moments = []
    for index in range(70):
        level = np.full((8 * 58 + 2, 3 * 58 + 2, channels), 3 * index, np.uint8)
        path = tmp_path / f"grid-{index}.png"
        Image.fromarray(level[..., 0] if channels == 1 else level).save(path)
        moments.append((index * 4.0, path))
    write_progress(tmp_path, moments, rows_a_grid=8)
    with Image.open(tmp_path / "progress.png") as sheet:
        assert sheet.height == 16 * 58 and sheet.width > 3 * 58 + 2
        pixels = np.asarray(sheet.convert("L"))
        assert pixels[30, -30] == 0 and pixels[-30, -30] == 3 * 69  # the first and the last moment
    with Image.open(tmp_path / "progress.webp") as animation:
        assert animation.n_frames == 60 and animation.height == 8 * 58 + 2 + 26
        animation.seek(59)
        assert abs(int(np.asarray(animation.convert("L"))[30, 30]) - 3 * 69) < 4
    content = [(tmp_path / name).read_bytes() for name in ("progress.png", "progress.webp")]
    Image.new("L", (60, 466)).save(tmp_path / "narrow.png")  # as an older version drew two classes
    write_progress(tmp_path, [(0.0, tmp_path / "narrow.png"), *moments], rows_a_grid=8)
    assert content == [(tmp_path / name).read_bytes() for name in ("progress.png", "progress.webp")]
    write_progress(tmp_path, moments, rows_a_grid=8)
    assert content == [(tmp_path / name).read_bytes() for name in ("progress.png", "progress.webp")]
