"""The blind test for people: what the page gives away, what a browser makes of it, and what the answers say."""

import base64
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consumer import Generator
from gan.intervals import proportion
from stages.config.reference import Fit, ReferenceConfig, Training
from stages.evaluate._panel_make import make
from stages.evaluate._panel_read import GENERATED, REAL, binomial_p, read, t_test_p
from stages.reference_folder import Reference
from tests.stages.browser import CHROMIUM, tab
from tests.stages.measured_worlds import POOL, digits, reference, stored

PROJECT = Path(__file__).parents[2]
IMAGES = 40


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference, and a generator of train images, so that a pixel says which side an image comes from."""
    folder = digits(tmp_path_factory.mktemp("panel"))
    recipe = Training(steps=20, batch=64, learning_rate=0.002)
    settings = ReferenceConfig(
        threads=1,
        seed=0,
        extractor=Fit(name="fit", width=16),
        largest_set=1000,
        floor_draws=2,
        picture_pool=50,
        training=recipe,
    )
    reference(folder, config=settings)
    images, labels, splits = (np.load(folder / "store" / f"{n}-00000.npy") for n in ("images", "labels", "split"))
    found = [images[(labels == label) & (splits == 0)] for label in range(10)]
    stored(folder, "generator", np.stack([each[np.arange(POOL) % len(each)] for each in found]))
    return folder


@pytest.fixture(scope="module")
def made(world: Path) -> Path:
    make(world / "generator.onnx", world / "reference", out=world / "panel", images=IMAGES, seed=5)
    return world / "panel"


def key_of(panel: Path) -> dict[str, Any]:
    return json.loads((panel / "key.json").read_text())


def embedded(panel: Path) -> list[str]:
    """Images as the page holds them, base64, in the order shown."""
    found = re.search(r'<script type="application/json" id="images">(.*?)</script>', (panel / "panel.html").read_text())
    assert found is not None
    return json.loads(found.group(1))


def test_the_key_is_true_and_sides_have_the_same_classes(made: Path, world: Path) -> None:
    held, labels = (np.load(world / "reference" / f"heldout_{name}.npy") for name in ("images", "labels"))
    store, splits = (np.load(world / "store" / f"{name}-00000.npy") for name in ("images", "split"))
    names = np.load(world / "store" / "labels-00000.npy")
    real = {image.tobytes(): int(label) for image, label in zip(held, labels, strict=True)}
    fake = {image.tobytes(): int(label) for image, label in zip(store[splits == 0], names[splits == 0], strict=True)}
    asked: dict[str, list[int]] = {REAL: [], GENERATED: []}
    for text, answer in zip(embedded(made), key_of(made)["answers"], strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))[..., None].tobytes()
        asked[answer].append((real if answer == REAL else fake)[pixels])
    assert len(asked[REAL]) == len(asked[GENERATED]) == IMAGES // 2
    assert sorted(asked[REAL]) == sorted(asked[GENERATED])


def test_no_latent_is_shown_twice(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    generate = Generator.generate

    def watched(self: Generator, count: int, seed: int, label: int, *, start: int = 0) -> np.ndarray:
        drawn.extend(range(start, start + count))
        return generate(self, count, seed, label, start=start)

    monkeypatch.setattr(Generator, "generate", watched)
    make(world / "generator.onnx", world / "reference", out=world / "watched", images=IMAGES, seed=5)
    assert sorted(drawn) == list(range(IMAGES // 2))


def test_nothing_but_the_picture_tells(made: Path) -> None:
    page, key = (made / "panel.html").read_text(), key_of(made)
    assert len({len(text) for text in embedded(made)}) == 1, "the size of a file must not tell"
    heads = {base64.b64decode(text)[:33] for text in embedded(made)}
    assert len(heads) == 1 and all(not Image.open(io.BytesIO(base64.b64decode(t))).info for t in embedded(made))
    rest = re.sub(r"iVBOR[A-Za-z0-9+/=]+", "", page)
    for secret in (
        key["onnx_sha256"],
        key["data_hash"],
        str(key["seed"]) + ",",
        "generator.onnx",
        "heldout",
        "key.json",
    ):
        assert secret not in rest
    assert not re.search(r"https?:|src=|url\(|fetch|XMLHttp|sendBeacon|WebSocket", rest)
    runs = "".join("r" if each == REAL else "g" for each in key["answers"])
    assert "r" * (IMAGES // 2) not in runs and "rg" * (IMAGES // 2) not in runs


def test_one_seed_one_panel(made: Path, world: Path) -> None:
    again, other = world / "again", world / "other"
    make(world / "generator.onnx", world / "reference", out=again, images=IMAGES, seed=5)
    make(world / "generator.onnx", world / "reference", out=other, images=IMAGES, seed=6)
    for name in ("panel.html", "key.json"):
        assert (again / name).read_bytes() == (made / name).read_bytes() != (other / name).read_bytes()
    assert key_of(other)["answers"] != key_of(made)["answers"]


@pytest.mark.parametrize(
    ("images", "message"), [(41, "even"), (2, "from 20"), (100000, "twice the held-out"), (-4, "even")]
)
def test_impossible_numbers_are_refused(world: Path, images: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(world / "generator.onnx", world / "reference", out=world / "refused", images=images, seed=0)
    assert not (world / "refused").exists()


def test_too_few_held_out_images_are_said(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reference, "heldout", 8)
    with pytest.raises(ValueError, match=r"shows 20 images or more.* has 8 held-out images"):
        make(world / "generator.onnx", world / "reference", out=world / "refused", images=20, seed=0)


def test_a_panel_is_never_replaced_and_seeds_have_a_range(made: Path, world: Path) -> None:
    with pytest.raises(ValueError, match="name another folder"):
        make(world / "generator.onnx", world / "reference", out=made, images=IMAGES, seed=9)
    with pytest.raises(ValueError, match="--seed must lie in"):
        make(world / "generator.onnx", world / "reference", out=world / "refused", images=IMAGES, seed=-1)


def test_the_command_makes_and_reads(world: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stages.evaluate.panel"]
    where = ["--onnx", world / "generator.onnx", "--reference", world / "reference", "--out", tmp_path / "p"]
    done = subprocess.run([*command, "make", *where, "--images", "20"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["images"] == 20 and "and keep" in done.stderr
    answers = given(tmp_path / "p", tmp_path / "a.json", "Ann", [REAL] * 20)
    done = subprocess.run(
        [*command, "read", "--key", told["key"], answers], cwd=PROJECT, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    assert found["together"]["error_rate"]["value"] == 0.5 and found["reading"] in done.stderr
    answers.write_text("{}")
    done = subprocess.run(
        [*command, "read", "--key", told["key"], answers], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("panel: ") and "Traceback" not in done.stderr


def given(made: Path, path: Path, rater: object, answers: object, **changes: Any) -> Path:
    path.write_text(
        json.dumps({"format": 1, "panel": key_of(made)["panel"], "rater": rater, "answers": answers} | changes)
    )
    return path


def with_errors(panel: Path, wrong: int, seed: int = 0) -> list[str]:
    """Answers with that many mistakes, at places of chance."""
    right = key_of(panel)["answers"]
    places = set(np.random.default_rng(seed).permutation(len(right))[:wrong].tolist())
    other = {REAL: GENERATED, GENERATED: REAL}
    return [other[truth] if place in places else truth for place, truth in enumerate(right)]


@pytest.mark.parametrize(
    ("wrong", "says"), [(2, "are told from real ones"), (20, "not shown to be"), (38, "more readily")]
)
def test_one_rater_has_a_wilson_interval_and_a_reading(made: Path, tmp_path: Path, wrong: int, says: str) -> None:
    found = read(made / "key.json", [given(made, tmp_path / "a.json", "Ann", with_errors(made, wrong))])
    rate = found["together"]["error_rate"]
    assert rate == found["raters"][0]["error_rate"] and rate["value"] == wrong / IMAGES and rate["n"] == IMAGES
    assert rate["low"] < rate["value"] < rate["high"] and says in found["reading"]
    assert (found["together"]["p"] < 0.001) == (wrong != 20)
    sides = [found["raters"][0][name] for name in ("generated_taken_for_real", "real_taken_for_generated")]
    assert sum(side["value"] * side["n"] for side in sides) == pytest.approx(wrong)


def test_raters_who_differ_widen_the_interval_and_agreement_never_narrows_it(made: Path, tmp_path: Path) -> None:
    def together(errors: list[int]) -> dict[str, Any]:
        files = [given(made, tmp_path / f"{i}.json", f"r{i}", with_errors(made, n, i)) for i, n in enumerate(errors)]
        return read(made / "key.json", files)["together"]

    alike, apart = together([10, 10, 10, 10]), together([0, 5, 15, 20])
    assert alike["error_rate"]["value"] == apart["error_rate"]["value"] == 0.25
    assert apart["error_rate"]["low"] == 0.0 and apart["error_rate"]["high"] > 0.35 and apart["p"] > 0.02
    width = alike["error_rate"]["high"] - alike["error_rate"]["low"]
    assert 0.1 < width < 0.2 and alike["p"] < 1e-6  # Wilson over 160 answers, though the four rates are equal


def test_the_interval_over_raters_covers() -> None:
    """Raters of a population with mean .35 and spread .12, 60 images each: 2,000 panels a cell."""
    from stages.evaluate._panel_read import _pooled

    rng = np.random.default_rng(0)
    for raters in (2, 5, 12):
        hits = 0
        for _ in range(2000):
            wrong = rng.binomial(60, rng.beta(5.2, 9.657, raters))
            found = _pooled([proportion(int(each), 60) for each in wrong])
            hits += found["low"] <= 0.35 <= found["high"]
        assert 0.93 <= hits / 2000 <= 0.985, (raters, hits)


def test_p_values_are_the_tests_they_name() -> None:
    assert binomial_p(0, 10) == pytest.approx(2 / 1024) and binomial_p(5, 10) == 1.0 == binomial_p(3, 5)
    assert binomial_p(8, 10) == binomial_p(2, 10) == pytest.approx(2 * 56 / 1024)
    # t = (0.4 - 0.5) / (0.1 / sqrt 3) = -1.7320508, 2 degrees: p = 1 - t / sqrt(t^2 + 2)
    assert t_test_p([0.3, 0.4, 0.5]) == pytest.approx(1 - 1.7320508 / 5**0.5, abs=1e-6)
    assert t_test_p([0.5, 0.5]) == 1.0 and t_test_p([0.4, 0.4]) < 1e-9


OTHER = ["real"] * (IMAGES - 1)


@pytest.mark.parametrize(
    ("rater", "answers", "changes", "message"),
    [
        ("Ann", [*OTHER, None], {}, "not finished: 1 of 40 images have no answer, the first is image 40"),
        ("Ann", OTHER, {}, "40 answers, one per image; it holds 39"),
        ("Ann", {"0": "real"}, {}, "it holds dict"),
        ("Ann", [*OTHER, "Real"], {}, "received 'Real' for image 40"),
        ("Ann", [*OTHER, True], {}, "received 'True'"),
        ("Ann", [*OTHER, ["real"]], {}, "real or generated"),
        ("Ann", [*OTHER, "real"], {"panel": "0" * 16}, "but the key is that of panel"),
        ("Ann", [*OTHER, "real"], {"format": 2}, "format"),
        (7, [*OTHER, "real"], {}, "in text; received int"),
        ("\u202eevil\x1b[2J", [*OTHER, "real"], {}, "cannot be printed"),
    ],
)  # fmt: skip
def test_bad_answers_are_refused(
    made: Path, tmp_path: Path, rater: object, answers: object, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read(made / "key.json", [given(made, tmp_path / "a.json", rater, answers, **changes)])


def test_hostile_files_are_refused(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    none = "a.json is not a JSON file of ganops"
    contents = ((b"[" * 500_000, none), (b"9" * 5_000, none), (b"\xff", none), (b"x" * 2_000_000, "bytes"))
    for content, message in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read(made / "key.json", [path])
    good = given(made, path, "Ann", with_errors(made, 3))
    for answers in (["real"], [["real"], "generated"]):
        with pytest.raises(ValueError, match="not the key"):
            read(given(made, tmp_path / "k.json", "x", answers, onnx_sha256="0"), [good])


def test_a_rater_counts_once(made: Path, tmp_path: Path) -> None:
    first = given(made, tmp_path / "a.json", "Ann", with_errors(made, 3))
    with pytest.raises(ValueError, match="the same answers"):
        read(made / "key.json", [first, given(made, tmp_path / "b.json", "Bob", with_errors(made, 3))])
    with pytest.raises(ValueError, match="the same rater"):
        read(made / "key.json", [first, given(made, tmp_path / "b.json", " ann ", with_errors(made, 4))])
    both = [given(made, tmp_path / f"{name}.json", name, with_errors(made, 0)) for name in ("Ann", "Bob")]
    assert len(read(made / "key.json", both)["raters"]) == 2, "two people may both be right everywhere"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_person_with_a_keyboard_gets_to_the_end(made: Path, tmp_path: Path) -> None:
    with tab(tmp_path) as page:
        page.shape(390, 780)
        page.open(made / "panel.html")
        wide = page.run("document.documentElement.scrollWidth")
        assert wide <= 390, "a phone must not scroll sideways"
        assert page.run("document.activeElement.id") == "rater"
        page.run("document.getElementById('start').requestSubmit()")
        assert page.run("document.getElementById('ask').hidden"), "a rater without a name cannot begin"
        for letter in "Ann":
            page.press(letter)
        page.run("document.getElementById('start').requestSubmit()")
        assert (
            page.run("document.getElementById('image').complete && document.getElementById('image').naturalWidth") == 8
        )
        for key in ("r", "g", "Backspace", "ArrowLeft"):  # the second answer is corrected to real
            page.press(key)
        assert page.run("document.getElementById('place').textContent") == f"3 of {IMAGES}"
        time.sleep(1)  # Chromium hands what a page keeps to another process, not at once
        page.open(made / "panel.html")  # closed by mistake: nothing is lost
        assert page.run("document.getElementById('place').textContent") == f"3 of {IMAGES}"
        for place in range(2, IMAGES):
            page.press("ArrowRight" if place % 2 else "r")
        text = page.run("document.getElementById('text').value")
        page.run("document.getElementById('save').click()")
        for _ in range(600):
            files = list((tmp_path / "downloads").glob("*.json"))
            if files:
                break
            time.sleep(0.1)
        assert page.requests == [(made / "panel.html").resolve().as_uri()] * 2 and not page.faults
    (saved,) = files
    assert saved.name.startswith("answers-") and "Ann" in saved.name and saved.read_text() == text
    found = read(made / "key.json", [saved])
    said = [REAL, REAL, *(GENERATED if place % 2 else REAL for place in range(2, IMAGES))]
    wrong = sum(a != b for a, b in zip(said, key_of(made)["answers"], strict=True))
    assert found["raters"][0]["rater"] == "Ann" and found["together"]["error_rate"]["value"] == wrong / IMAGES
