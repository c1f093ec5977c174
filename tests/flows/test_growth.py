"""What DVC has to store anew when images are added: the shards that changed and the lists, nothing else."""

from pathlib import Path

import pytest
from tiny_images import sh

from stages.ingest.sources import folder
from tests.stages.ingesting import ingest, png


def test_of_one_percent_more_images_only_new_shards_reach_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    project = tmp_path / "project"
    for name in "abcdefgh":
        (project / "raw" / name).mkdir(parents=True)
        for at in range(100):
            (project / "raw" / name / f"{at:03d}.png").write_bytes(png(1000 * ord(name) + at))
    sh(project, "git", "init", "-q")
    sh(project, "dvc", "init", "-q")

    def kept() -> tuple[set[Path], int]:
        """Objects of DVC's cache, and the number of shards."""
        settings = folder.Config(name="folder", labels="none", groups="none")
        result = ingest(project / "raw", "images", source=settings, shard_images=8)
        sh(project, "dvc", "add", "-q", "images")
        objects = {path for path in (project / ".dvc" / "cache" / "files").rglob("*") if path.is_file()}
        return objects, len(list(result.path.glob("images-*.npy")))

    before, shards = kept()
    assert shards > 60 and len(before) > shards
    (project / "raw" / "dd").mkdir()
    for at in range(8):
        (project / "raw" / "dd" / f"{at}.png").write_bytes(png(at))
    after, _ = kept()
    new = after - before
    assert before <= after
    arrays = [path for path in new if path.read_bytes().startswith(b"\x93NUMPY")]
    images = [path for path in arrays if b"8, 8, 1" in path.read_bytes()[:128]]
    assert 1 <= len(images) <= 3 and len(arrays) <= 3 * len(images)  # shards around one cut, their labels and splits
    lists = len(new) - len(arrays)  # manifest, dataset.json, croissant.json, summary.json, and DVC's list of the folder
    assert lists <= 5 and len(new) < len(before) / 8
