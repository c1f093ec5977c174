"""Control of a run: it is measured, the best moment is kept, and trouble takes it back, the same after every kill."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from gan import networks, pixels
from gan.features.domain import Recipe, features, fit
from stages.common.files import digest
from stages.common.summary import Summary
from stages.config import build
from stages.config.train import TrainConfig
from stages.reference._selection import write_selection
from stages.store import open_store
from stages.train import _checkpoints, _course, _loop, run
from stages.train._control import Control
from tests.stages.small_training import Course, bars, collapsing, follow, small

PROJECT = Path(__file__).parents[2]
MEASURED = {
    "name": "domain", "metric": "fid_train", "keep": "best", "every_kimg": 0.32, "images": 200, "seed": 9,
    "patience_kimg": None,
}  # fmt: skip
ALARMS = {"loss": 1000.0, "collapse": 0.5, "separation": 1.0, "in_a_row": 2}
LONG = {"total_kimg": 3.84, "checkpoint_kimg": 0.32, "alarms": ALARMS}  # 240 steps, a look and a checkpoint every 20
RISING = {"lr": 0.002, "lr_final": 0.1, "lr_kimg": 4.8, **LONG}  # learns first, then falls apart, nobody knows when
PLAIN = {
    "name": "dcgan", "form": "upsampling", "width": 8, "embedding": 4, "norm": "none", "dropout": 0.0,
    "minibatch": "none", "group": 1,
}  # fmt: skip
ONCE = {"most": 1, "reseed": True, "lr_factor": 0.05}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store of two classes, its verdict, and what a run is measured against."""
    store = open_store(bars(tmp_path))
    fitted = store.splits["fit"]
    network = fit(fitted.all(), fitted.labels, classes=2, recipe=Recipe(width=8, steps=40, batch=32), seed=0)
    real, _ = features(network, store.splits["train"].all())
    write_selection(tmp_path / "selection", network, real, store.info["data_hash"])
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    return tmp_path


def train(home: Path, out: str = "train", **changes: Any) -> Summary:
    return run(
        build(TrainConfig, small(**changes), "train"),
        images=home / "ingest", passed=home / "passed.json", selection=home / "selection", out=home / out,
    )  # fmt: skip


def measures(home: Path, out: str = "train") -> np.ndarray:
    return np.atleast_1d(np.genfromtxt(home / out / "measures.csv", delimiter=",", names=True))


def killed_once(monkeypatch: pytest.MonkeyPatch, home: Path, at: int, **changes: Any) -> None:
    """Run until the write or pruning number `at` of checkpoints, which fails as if the process died there."""
    left = [at]

    def die_at(real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return real(*arguments, **named)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(_checkpoints, "write_atomically", die_at(_checkpoints.write_atomically))
        patched.setattr(_checkpoints, "prune", die_at(_checkpoints.prune))
        with pytest.raises(KeyboardInterrupt):
            train(home, "killed", **changes)


def best_at(step: int) -> Course:
    """The distance falls until `step` and rises after it."""
    return lambda _, now: {"fid_train": 1 + abs(now - step) / 100, "coverage_train": 1.0, "diversity_train": 1.0}


def test_the_best_moment_is_published_and_not_the_last(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(best_at(160), monkeypatch.setattr)
    summary = train(home, selection=MEASURED, **LONG)
    rows, control, best = measures(home), summary.results["control"], 160
    assert [*rows["step"]] == [*range(20, 241, 20)]
    assert control["published_step"] == control["best"]["step"] == best < 240 == summary.results["steps"]
    description = json.loads((home / "train" / "generator" / "generator.json").read_text())
    assert description["step"] == best

    # It is the generator of that moment: that of a run which ends there.
    (home / "state").rename(home / "other-state")
    shorter = train(home, "shorter", selection=MEASURED, **LONG | {"total_kimg": best * 16 / 1000})
    assert shorter.results["control"]["published_step"] == best
    found, expected = (load_file(home / out / "generator" / "generator.safetensors") for out in ("train", "shorter"))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)

    # Asked for the last one, the same run publishes that.
    (home / "state").rename(home / "one-more")
    last = train(home, "last", selection=MEASURED | {"keep": "last"}, **LONG)
    assert last.results["control"]["published_step"] == 240 and digest(home / "last") != digest(home / "train")


@pytest.mark.parametrize("best", [20, 200])  # in floating point 3.84 - 3.2 is less than 0.64
def test_a_run_without_progress_stops_early_and_stays_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, best: int
) -> None:
    follow(best_at(best), monkeypatch.setattr)
    patient = MEASURED | {"patience_kimg": 0.64}
    summary = train(home, selection=patient, **LONG | {"total_kimg": 12.8})
    control = summary.results["control"]
    assert control["stopped"] == "fid_train has not improved for 0.64 kimg"
    assert summary.results["steps"] == control["best"]["step"] + 40 == best + 40
    again = train(home, "again", selection=patient, **LONG | {"total_kimg": 16.0})
    assert again.results["steps"] == summary.results["steps"]
    assert again.outputs == summary.outputs


def test_a_run_that_stops_before_its_first_look_has_a_curve(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early = MEASURED | {"every_kimg": 0.08, "patience_kimg": 0.1}
    found = dict.fromkeys(("fid_train", "precision_train", "recall_train", "density_train", "coverage_train"), 1.0)
    monkeypatch.setattr(_course, "measured", lambda *_: found | {"diversity_train": 1.0, "separation": 0.5})
    for _ in range(2):
        summary = train(home, selection=early)
        assert summary.results["steps"] == 15 and summary.results["last"]["step"] == 15.0
        assert len((home / "train" / "curves.csv").read_text().splitlines()) == 2


def test_a_discriminator_that_compares_images_is_measured_in_whole_groups(home: Path) -> None:
    """60 training and 200 generated images, neither of which fills groups of 8 or passes of 256."""
    network = PLAIN | {"minibatch": "deviation", "group": 8}
    train(home, network=network, selection=MEASURED | {"images": 301})
    separation = measures(home)["separation"]
    assert len(separation) == 3 and (separation >= 0).all() and (separation <= 1).all()


def test_images_that_are_not_finite_ring_though_the_weights_are(home: Path) -> None:
    """Weights near the largest float: what they draw overflows. Measured or only looked at, the run goes back."""
    poisoned = []

    def poison(players: Any, **more: Any) -> None:
        _update_average(players, **more)
        if more["images_done"] >= 39 * 16 and not poisoned:
            poisoned.append(True)
            for weight in players.average.last.parameters():
                weight.data.fill_(3e38)
            players.average.image.weight.data[:, ::2] = -1.0
            players.average.image.weight.data[:, 1::2] = 1.0  # infinity less infinity

    _update_average = _loop.training.update_average
    for changes in ({"selection": MEASURED}, {"snapshot_kimg": 0.16, "checkpoint_kimg": 0.32}):
        poisoned.clear()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(_loop.training, "update_average", poison)
            summary = train(home, rollbacks=ONCE, alarms=ALARMS | {"collapse": 0.0}, **changes)
        assert poisoned and summary.results["steps"] == 60
        (alarm,) = summary.results["control"]["alarms"]
        assert alarm["kind"] == "divergence" and alarm["step"] == 40 and "images are not finite" in alarm["said"]


def exploding(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """A loss beyond its limit at one step, until the run has gone back."""
    one_step = _loop.Run.one_step

    def step(run: _loop.Run) -> dict[str, torch.Tensor]:
        terms = one_step(run)
        return terms | {"loss_g": torch.tensor(2000.0)} if (run.control.attempt, run.step) == (0, at) else terms

    monkeypatch.setattr(_loop.Run, "one_step", step)


@pytest.mark.parametrize("kind", ["divergence", "collapse"])
def test_trouble_takes_the_run_back_and_it_recovers_with_the_same_bytes_after_every_kill(
    home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    changes: dict[str, Any] = LONG
    if kind == "divergence":
        exploding(monkeypatch, 160)
    else:
        follow(collapsing, monkeypatch.setattr)
        changes = LONG | {"selection": MEASURED}
    whole = train(home, "whole", rollbacks=ONCE, **changes)
    control = whole.results["control"]
    (back,) = control["rollbacks"]
    assert back == {"kind": kind, "at": 160, "to": 120 if kind == "divergence" else 100, "final": False}
    assert [(alarm["kind"], alarm["step"]) for alarm in control["alarms"]] == [(kind, 160)]
    assert all(abs(whole.results["last"][name]) < 20 for name in ("loss_d", "loss_g"))
    if kind == "collapse":
        rows = measures(home, "whole")
        assert [*rows["step"]] == [*range(20, 241, 20)] and rows["coverage_train"].min() > 0.7
        return  # test_train_kills.py kills this one at random
    before = 2 * ((back["at"] - 1) // 20)  # each checkpoint before the alarm was one write and one pruning
    for at in (before, before + 1):
        shutil.rmtree(home / "state")
        killed_once(monkeypatch, home, at, rollbacks=ONCE, **changes)
        assert train(home, "killed", rollbacks=ONCE, **changes).outputs == whole.outputs, f"killed at {at}"


@pytest.mark.slow
def test_two_processes_go_back_together_and_speak_with_one_voice(home: Path) -> None:
    section = small(processes=2, selection=MEASURED, rollbacks=ONCE | {"most": 3}, **RISING)
    (home / "params.json").write_text(json.dumps({"train": section}))
    paths = {name: home / name for name in ("selection", "out")}
    paths |= {"images": home / "ingest", "passed": home / "passed.json", "params": home / "params.json"}
    options = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    done = subprocess.run(
        [sys.executable, "-m", "stages.train", *options], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    backs = json.loads((home / "out" / "summary.json").read_text())["results"]["control"]["rollbacks"]
    assert backs
    for number, back in enumerate(backs, start=1):
        assert done.stderr.count(f"going back to step {back['to']}, {number} of 3 times") == 1


def test_rollbacks_are_bounded_and_the_failure_says_what_happened(home: Path) -> None:
    hopeless = {"lr": 0.9, "lr_final": 0.9, "rollbacks": {"most": 2, "reseed": True, "lr_factor": 1.0}}
    for _ in range(2):  # the second time from the state folder
        with pytest.raises(FloatingPointError, match=r"divergence at step \d+, and the run went back 2 times already"):
            train(home, **hopeless)
    assert not (home / "train").exists()
    (log,) = (home / "state").glob("train/*/log.jsonl")
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["alarm"] for line in said if "alarm" in line][:3] == ["divergence"] * 3


def ends(home: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> dict[str, Any]:
    """Changes to the small run of two that get better until step 120 and end in trouble: with no rollback left it
    collapses at step 160, with none at all its weights are not finite at step 200."""

    def course(attempt: int, step: int) -> dict[str, float]:
        return collapsing(0, step) | ({"coverage_train": 1.0} if not most else {})

    def poison(players: Any, **more: Any) -> None:
        update_average(players, **more)
        if not most and more["images_done"] >= 199 * 16:
            next(players.generator.parameters()).data.fill_(float("nan"))

    update_average = _loop.training.update_average
    follow(course, monkeypatch.setattr)
    monkeypatch.setattr(_loop.training, "update_average", poison)
    return LONG | {"selection": MEASURED, "rollbacks": ONCE | {"most": most}}


@pytest.mark.parametrize("most", [0, 1])
def test_a_run_that_fails_for_good_ends_with_its_best_moment_and_stays_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, most: int
) -> None:
    changes = ends(home, monkeypatch, most)
    whole = train(home, "whole", **changes)
    control = whole.results["control"]
    assert control["published_step"] == control["best"]["step"] == whole.results["steps"] == 120
    assert whole.results["last"]["step"] == measures(home, "whole")["step"][-1] == 120.0
    said = "collapse at step 160, and the run went back 1 times already: coverage_train fell from 0.820 to 0.100; raise"
    assert control["stopped"].startswith(
        said if most else "training diverged at step 200: weights are not finite; raise"
    )
    assert (
        [(back["at"], back["to"]) for back in control["rollbacks"]] == [(160, 100), (160, 120)]
        if most
        else [(200, 120)]
    )
    assert f"{control['stopped']}; the run ends with its best moment, step 120" in caplog.text

    # It is decided once, and decided alike after a kill; a larger budget does not change it.
    writes = len(list((home / "state").glob("train/*/checkpoint-*")))
    assert train(home, "again", **changes).outputs == whole.outputs
    assert train(home, "longer", **changes | {"total_kimg": 4.8}).outputs == whole.outputs
    assert len(list((home / "state").glob("train/*/checkpoint-*"))) == writes
    before = {0: 2 * 9, 1: 2 * (7 + 1 + 2)}[most]
    for at in (before, before + 1):  # at the write of the best moment as the last one, and at the pruning after it
        shutil.rmtree(home / "state")
        killed_once(monkeypatch, home, at, **changes)
        assert train(home, "killed", **changes).outputs == whole.outputs, f"killed at {at}"

    # Without that moment's checkpoint, or where the last one was asked for, it fails.
    load_moment = _course.load_moment
    with (
        monkeypatch.context() as patched,
        pytest.raises(FloatingPointError, match=r" at step (160|200): |at step 160, and"),
    ):
        patched.setattr(_course, "load_moment", lambda *found: load_moment(*found) if found[-1].step != 120 else None)
        shutil.rmtree(home / "state")
        train(home, "lost", **changes)
    with pytest.raises(FloatingPointError, match=r" at step (160|200): |at step 160, and"):
        train(home, "last", **changes | {"selection": MEASURED | {"keep": "last"}})


@pytest.mark.fast
@pytest.mark.parametrize(
    ("changes", "divergence", "collapse"),
    [
        (
            {},
            "raise the gamma of r1 and r2, or lower train.lr",
            "raise the gamma of r1 and r2, lower train.lr, or raise train.batch",
        ),
        (
            {"penalties": [{"name": "wgan_gp", "gamma": 10.0, "gamma_final": 10.0}]},
            "raise the gamma of wgan_gp, or lower train.lr",
            "raise the gamma of wgan_gp, lower train.lr, or raise train.batch",
        ),
        (
            {"penalties": []},
            "add the penalties r1 and r2, or lower train.lr",
            "add the penalties r1 and r2, lower train.lr, or raise train.batch",
        ),
        (
            {"penalties": [], "network": PLAIN | {"norm": "batch"}},
            "lower train.lr",
            "lower train.lr, or raise train.batch",
        ),
        (
            {"batch": 60},
            "raise the gamma of r1 and r2, or lower train.lr",
            "raise the gamma of r1 and r2, or lower train.lr",
        ),
    ],
)
def test_what_is_advised_is_not_what_would_be_refused(changes: dict[str, Any], divergence: str, collapse: str) -> None:
    config = build(TrainConfig, small(**changes), "train")
    advice = [_course._advice(config, kind, images=60) for kind in ("divergence", "collapse", "overfitting")]
    assert advice == [
        divergence,
        collapse,
        "use more images, or more of train.augmentation and train.variations",
    ]


def test_a_damaged_checkpoint_is_trained_again_before_the_run_goes_back_to_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(collapsing, monkeypatch.setattr)
    whole = train(home, "whole", rollbacks=ONCE, selection=MEASURED, **LONG)
    shutil.rmtree(home / "state")
    (back,) = whole.results["control"]["rollbacks"]
    load_moment, left = _course.load_moment, [1]

    def damaged(folder: Path, *arguments: Any) -> Any:
        if left[0]:
            left[0] = 0
            (path,) = folder.glob(f"checkpoint-000-{back['to']:09d}-*")
            path.write_bytes(path.read_bytes()[:-1])
        return load_moment(folder, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_course, "load_moment", damaged)
        assert train(home, "again", rollbacks=ONCE, selection=MEASURED, **LONG).outputs == whole.outputs
    assert left == [0]


def noise(home: Path) -> None:
    """Replace the images by noise, in which there is nothing to learn but each single one."""
    for number, path in enumerate(sorted((home / "ingest").glob("images-*.npy"))):
        shape = np.load(path).shape
        np.save(path, np.random.default_rng(number).integers(0, 256, shape).astype(np.uint8))


def test_a_discriminator_that_learns_its_images_by_heart_rings_and_ends_the_run(home: Path) -> None:
    network = {"name": "r3gan", "widths": [32, 16], "blocks": [1, 0], "embedding": 4, "projection": 8}
    by_heart = {
        "network": network, "penalties": [], "total_kimg": 3.2, "selection": MEASURED | {"keep": "last"},
        "alarms": {"loss": 1e6, "collapse": 0.0, "separation": 0.95, "in_a_row": 2},
    }  # fmt: skip
    assert train(home, "bars", **by_heart).results["control"]["alarms"] == []
    assert measures(home, "bars")["separation"].max() < 0.9

    noise(home)
    shutil.rmtree(home / "state")
    summary = train(home, "noise", **by_heart)
    alarm = summary.results["control"]["alarms"][0]
    assert alarm["kind"] == "overfitting" and alarm["step"] < 200 == summary.results["steps"]
    assert (measures(home, "noise")["separation"] > 0.95).sum() >= 2

    # It is by heart: other images of the same noise, which it was never shown, get other logits.
    store, folder = open_store(home / "ingest"), home / "noise" / "generator"
    shape: dict[str, Any] = {"classes": 2, "resolution": 8, "channels": 1}
    critic = networks.build_discriminator(json.loads((folder / "generator.json").read_text())["architecture"], **shape)
    critic.load_state_dict(load_tensors(folder / "discriminator.safetensors"))
    shown, others = (
        critic(torch.from_numpy(pixels.to_float(split.all())), torch.from_numpy(split.labels))
        for split in (store.splits["train"], store.splits["heldout"])
    )
    assert (shown[:, None] > others).float().mean() > 0.9

    # Where it may go back it does, and where that does not help it fails.
    with pytest.raises(FloatingPointError, match=r"overfitting at step \d+, and the run went back 1 times already"):
        train(home, "back", rollbacks={"most": 1, "reseed": True, "lr_factor": 1.0}, **by_heart)


def ringing(name: str, values: list[float]) -> list[tuple[int, str]]:
    """Number and kind of the alarms of a run that finds these values of one measure, the others being sound."""
    config = build(TrainConfig, small(selection=MEASURED, alarms=ALARMS | {"separation": 0.999}), "train")
    control, sound = Control(), {"fid_train": 1.0, "coverage_train": 0.9, "diversity_train": 1.0, "separation": 0.5}
    rows = [sound | {"step": float(number), "kimg": 1.0 * number, name: value} for number, value in enumerate(values)]
    return [
        (number, kind)
        for number, row in enumerate(rows)
        for kind, _ in control.evaluated(config, row, regular=True)
    ]  # fmt: skip


def test_a_discriminator_that_is_strong_as_the_run_starts_is_none_that_overfits() -> None:
    """Real images are told from a generator's first ones with ease; trouble is where that comes back."""
    assert ringing("separation", [1.0, 0.9999, 1.0, 0.938, 0.489, 0.391, 0.5103, 0.5187]) == []
    assert ringing("separation", [1.0, 1.0, 0.6, 1.0, 0.9999, 1.0]) == [(4, "overfitting")]


def test_a_diversity_beyond_that_of_real_images_may_fall_to_it() -> None:
    assert ringing("diversity_train", [2.4, 1.6, 1.1, 1.0, 0.6]) == []
    assert ringing("diversity_train", [2.4, 1.6, 0.49, 0.48]) == [(3, "collapse")]
    assert ringing("diversity_train", [0.8, 0.6, 0.39, 0.38]) == [(3, "collapse")]


def test_another_measure_can_be_what_best_means_and_a_lower_rate_alone_what_going_back_changes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(lambda attempt, step: collapsing(attempt, step) | {"fid_train": 1 + step}, monkeypatch.setattr)
    slower = {"most": 1, "reseed": False, "lr_factor": 0.05}
    summary = train(home, selection=MEASURED | {"metric": "coverage_train"}, rollbacks=slower, **LONG)
    rows, control = measures(home), summary.results["control"]
    (back,) = control["rollbacks"]
    assert back["kind"] == "collapse" and control["published_step"] == control["best"]["step"] == 240
    assert control["best"]["value"] == rows["coverage_train"].max() == rows["coverage_train"][-1]


def test_what_a_run_is_measured_against_is_what_the_settings_name_unless_it_is_passed(home: Path) -> None:
    config = build(TrainConfig, small(selection=MEASURED, selection_inputs=str(home / "selection")), "train")
    summary = run(config, images=home / "ingest", passed=home / "passed.json", out=home / "named")
    passed = train(home, selection=MEASURED, selection_inputs="elsewhere")
    assert summary.results["control"]["best"] and summary.inputs["selection"] == passed.inputs["selection"]


def test_what_a_run_is_measured_against_must_fit(home: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.selection_inputs must be the folder `selection`"):
        run(
            build(TrainConfig, small(selection=MEASURED), "train"),
            images=home / "ingest", passed=home / "passed.json", selection=home / "passed.json", out=home / "out",
        )  # fmt: skip
    record = home / "selection" / "selection.json"
    record.write_text(record.read_text().replace('"data_hash": "h"', '"data_hash": "g"'))
    with pytest.raises(ValueError, match="belongs to other images"):
        train(home, selection=MEASURED)
    with pytest.raises(ValueError, match="rollbacks that change nothing end where they began"):
        build(TrainConfig, small(rollbacks={"most": 1, "reseed": False, "lr_factor": 1.0}), "train")
