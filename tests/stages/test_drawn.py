"""Drawing shows how far it is where somebody looks on, and says nothing in a log."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

from stages.drawn import drawn
from stages.scoring import generated_sets

pytestmark = pytest.mark.fast


class Plain:
    """A generator of images of 2 x 2 pixels: image i of any seed is full of i."""

    def draw(self, count: int, seed: int = 0, *, start: int = 0) -> tuple[np.ndarray, None]:
        values = np.arange(start, start + count).astype(np.uint8)
        return np.broadcast_to(values[:, None, None, None], (count, 2, 2, 1)).copy(), None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "log"])
def test_images_on_the_disk_are_counted(stream: io.StringIO, tmp_path: Path) -> None:
    with contextlib.redirect_stderr(stream):
        images, labels = drawn(Plain(), 600, seed=0, start=5, folder=tmp_path, title="audit: samples")
    assert labels is None and images[:, 0, 0, 0].tolist() == np.arange(5, 605).astype(np.uint8).tolist()
    shown = stream.getvalue()
    assert "audit: samples: 100%" in shown and "600/600" in shown if stream.isatty() else shown == ""


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "log"])
def test_sets_are_counted(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(
        "stages.scoring.features", lambda _, images: (rng.normal(size=(len(images), 3)), np.ones((len(images), 1)))
    )
    real = rng.normal(size=(40, 3)).astype(np.float32)
    with contextlib.redirect_stderr(stream):
        found = generated_sets(Plain(), None, real, sets=3, seed=0, title="evaluate: sets")  # type: ignore[arg-type]
    assert found.n == 40 and len(found.features) == 120
    shown = stream.getvalue()
    assert "evaluate: sets: 100%" in shown and "120/120" in shown if stream.isatty() else shown == ""
