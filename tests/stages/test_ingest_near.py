"""Near duplicates: found whatever was done to the picture, not found where nothing was, and found without N^2 work."""

import hashlib
import io
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

from stages.config.ingest import NearDuplicates
from stages.ingest._copies import split_of
from stages.ingest._near import CROWD, FAR, hashes, near_duplicates
from stages.ingest.sources import manifest
from stages.store import SPLITS
from tests.stages.ingesting import CONFIG, Result, encoded, ingest

pytestmark = pytest.mark.fast
NEAR = NearDuplicates(distance=7, levels=4.0)


def scene(seed: int, side: int = 64) -> Image.Image:
    """A smooth random picture in colour, as unlike any other as photographs are."""
    rough = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC)


def again(image: Image.Image, how: str) -> Image.Image:
    if how == "jpeg":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=70)
        return Image.open(io.BytesIO(buffer.getvalue()))
    if how == "scaled":
        return image.resize((97, 97), Image.Resampling.BICUBIC).resize((64, 64), Image.Resampling.BICUBIC)
    if how == "brighter":
        return image.point(lambda level: min(255, level + 3))
    return image.filter(ImageFilter.GaussianBlur(0.6))


@pytest.mark.parametrize("how", ["jpeg", "scaled", "brighter", "blurred"])
def test_the_hash_survives_what_happens_to_pictures(how: str) -> None:
    first = hashes(np.stack([np.asarray(scene(seed)) for seed in range(40)]))
    second = hashes(np.stack([np.asarray(again(scene(seed), how)) for seed in range(40)]))
    assert np.bitwise_count(first ^ second).max() <= 7
    others = np.bitwise_count(first[:, None] ^ first[None])[np.triu_indices(40, 1)]
    assert others.min() > 11 and 24 < others.mean() < 40


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (16, 3), (32, 1), (64, 3)])
def test_hashes_are_whole_number_work(side: int, channels: int) -> None:
    """The same bits in any batch, and as Python's integers have them."""
    images = np.random.default_rng(side).integers(0, 256, (5, side, side, channels)).astype(np.uint8)
    assert np.array_equal(hashes(images), np.concatenate([hashes(image[None]) for image in images]))
    weights = [299, 587, 114] if channels == 3 else [1]
    basis = [[round(256 * np.cos(np.pi / side * u * (x + 0.5))) for x in range(side)] for u in range(8)]
    luma = [[sum(w * int(v) for w, v in zip(weights, pixel, strict=True)) for pixel in row] for row in images[0]]
    rows = [[sum(basis[u][y] * luma[y][x] for y in range(side)) for x in range(side)] for u in range(8)]
    low = [sum(rows[u][x] * basis[v][x] for x in range(side)) for u in range(8) for v in range(8)]
    low[0] = 0
    middle = sum(sorted(low)[31:33])
    assert int(hashes(images[:1])[0]) == int("".join(str(int(2 * value > middle)) for value in low), 2)


def clustered(count: int, seed: int) -> NDArray[np.uint64]:
    """Hashes of which many differ in a few bits."""
    randomness = np.random.default_rng(seed)
    centres = randomness.integers(0, 2**63, count // 5, dtype=np.uint64) * 2 + 1
    found = centres[randomness.integers(0, len(centres), count)]
    flips = randomness.integers(0, 8, count)  # so that pairs of one centre differ in 0 to 14 bits
    for turn in range(8):
        bit = np.uint64(1) << randomness.integers(0, 64, count).astype(np.uint64)
        found = np.where(turn < flips, found ^ bit, found)
    return found


@pytest.mark.parametrize("distance", [0, 3, 4, 7, 8, 11])
def test_the_index_finds_what_comparing_all_pairs_finds(distance: int) -> None:
    hashed = clustered(400, distance)
    hashed[100:140] = hashed[200:240]
    randomness = np.random.default_rng(distance)
    mean, side = randomness.random(400) * 20, randomness.integers(0, 3, 400)
    allowed = randomness.random((400, 400)) < 0.7
    allowed &= allowed.T
    near = (np.bitwise_count(hashed[:, None] ^ hashed[None]) <= distance) & allowed
    near &= abs(mean[:, None] - mean[None]) <= 10
    np.fill_diagonal(near, False)
    squares = randomness.integers(0, 10**6, (400, 400))
    squares = np.where(allowed, squares + squares.T, FAR)
    found = near_duplicates(hashed, mean, side, distance, 10, lambda a, b: squares[a, b])
    stay = np.ones(400, bool)
    for one in (1, 0):  # side by side, from the furthest on
        stay[side == one] = ~(near & (side[None] > side[:, None]) & stay[None])[side == one].any(axis=1)
    further = near & (side[None] > side[:, None]) & ~stay[:, None] & stay[None]
    earlier = near & (side[None] == side[:, None]) & np.tri(400, k=-1, dtype=bool) & stay[:, None] & stay[None]
    assert (~stay).any() and earlier.any()
    for partner, wanted in ((found.partner, further), (found.same, earlier)):
        assert np.array_equal(partner >= 0, wanted.any(axis=1))
        some = np.flatnonzero(partner >= 0)
        assert wanted[some, partner[some]].all()
    taken = np.where(further & (side == 0)[:, None], squares, FAR)  # from training
    assert np.array_equal(found.squared, taken.min(axis=0)) and (found.squared < FAR).any()
    assert np.array_equal(found.nearest, np.where(taken.min(axis=0) < FAR, taken.argmin(axis=0), -1))
    assert found.crowded == 0


def test_a_crowd_costs_no_square() -> None:
    """All hashes alike, on three sides: each is still told its partner, in a moment and with little held."""
    count = 20_000
    hashed, side = np.full(count, 12345, np.uint64), np.arange(count) % 3
    compared = dict.fromkeys([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)], 0)

    def compare(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
        low, high = np.minimum(side[first], side[second]), np.maximum(side[first], side[second])
        for pair in compared:
            compared[pair] += int(((low == pair[0]) & (high == pair[1])).sum())
        return np.abs(first - second)

    start = time.perf_counter()
    tracemalloc.start()
    found = near_duplicates(hashed, np.linspace(0, 255, count), side, 3, 4, compare)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.crowded == count
    assert (found.partner[side < 2] >= 0).all() and (found.same[5::3] >= 0).all() and (found.same[side < 2] < 0).all()
    assert (found.squared[side == 2] == 1).all() and (found.nearest[side < 2] < 0).all()  # a neighbour in brightness
    assert compared[0, 1] == compared[0, 0] == compared[1, 1] == 0, "what was refused is compared with nothing"
    assert max(compared[1, 2], compared[2, 2]) < count * CROWD / 8, "until one is found"
    assert compared[0, 2] < 4 * (2 / 9) * count * CROWD < count**2 / 10  # each with each of its crowd
    assert peak < 64e6
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize("means", ["distinct", "equal"])
def test_in_a_crowd_of_one_brightness_partners_are_found_too(means: str) -> None:
    """2,000 hashes with one quarter in common, 1,000 of them one bit from a neighbour."""
    randomness = np.random.default_rng(0)
    hashed = randomness.integers(0, 2**48, 2000, dtype=np.uint64) << np.uint64(16)
    hashed[1::2] = hashed[::2] ^ np.uint64(1 << 20)
    mean = np.repeat(np.linspace(0, 255, 1000), 2) if means == "distinct" else np.full(2000, 128.0)
    found = near_duplicates(hashed, mean, np.zeros(2000, np.int64), 3, 4, lambda first, _: np.ones(len(first), int))
    assert found.crowded == 2000
    assert np.array_equal(found.same[1::2], np.arange(0, 2000, 2))


def drawn(raw: Path, **pictures: tuple[str, int]) -> None:
    """Files of one scene, each on a side and so much brighter, all channels alike."""
    raw.mkdir()
    for name, (side, level) in pictures.items():
        picture = scene(3).point(lambda value, level=level: 100 + value // 4 + level)
        for number in range(1000):
            info = PngInfo()
            info.add_text("number", str(number))
            content = encoded(picture, pnginfo=info)
            if SPLITS[split_of(np.frombuffer(hashlib.sha256(content).digest(), "V32"), CONFIG.splits)[0]] == side:
                break
        (raw / f"{name}.png").write_bytes(content)


def near_ingest(raw: Path, out: str = "store") -> Result:
    """Near within four levels; 3,072 numbers an image, so that a level is a squared distance of 3,072."""
    return ingest(raw, out, resolution=32, channels=3, near_duplicates=NEAR)


def test_a_picture_whose_partner_was_refused_is_no_leak(tmp_path: Path) -> None:
    """`a` is near `b` and near `c`, which are too far apart; `c` is held out and `a`, in train, refused for it."""
    drawn(tmp_path / "raw", a=("train", 0), b=("train", 3), c=("heldout", -3))
    result = near_ingest(tmp_path / "raw")
    assert result.refused == {"a.png": "near duplicate: of c.png (heldout)"}
    assert [row["source"] for row in result.rows] == ["b.png", "c.png"] and not result.table("near_duplicates.csv")
    assert result.table("near_refused.csv") == [["a.png", "train", "c.png", str(9 * 3072)]]


def test_a_picture_that_is_refused_refuses_none(tmp_path: Path) -> None:
    """`a` in train is near `b` in fit, which goes because of `c`, held out: nothing near to `a` is left."""
    drawn(tmp_path / "raw", a=("train", 3), b=("fit", 0), c=("heldout", -3))
    result = near_ingest(tmp_path / "raw")
    assert result.refused == {"b.png": "near duplicate: of c.png (heldout)"}
    assert not result.table("near_refused.csv"), "of training none"


def test_what_stays_is_told_the_nearest_picture_of_training_that_was_refused(tmp_path: Path) -> None:
    drawn(tmp_path / "raw", a=("train", 0), b=("train", 1), c=("fit", 2), d=("heldout", 7), e=("fit", -3))
    result = near_ingest(tmp_path / "raw")
    assert {source: reason[-9:] for source, reason in result.refused.items()} == {
        "a.png": "png (fit)", "b.png": "png (fit)",
    }  # fmt: skip
    squares = [("a", "e", 9), ("b", "c", 1)]  # not a and c, four levels, nor b and e, sixteen
    wanted = [[f"{refused}.png", "train", f"{kept}.png", str(levels * 3072)] for refused, kept, levels in squares]
    assert result.table("near_refused.csv") == wanted
    (tmp_path / "raw" / "e.png").unlink()
    again = near_ingest(tmp_path / "raw")
    assert again.table("near_refused.csv") == [row for row in wanted if row[2] != "e.png"]
    assert near_ingest(tmp_path / "raw").table("near_refused.csv") == again.table("near_refused.csv")


def test_a_pair_on_one_side_is_told_although_another_partner_was_refused(tmp_path: Path) -> None:
    """`c` is near to `a` and `b`; the search meets `a` first, which is refused for `d`."""
    drawn(tmp_path / "raw", a=("train", -1), b=("train", 2), c=("train", 1), d=("heldout", -4))
    result = near_ingest(tmp_path / "raw")
    assert list(result.refused) == ["a.png"]
    assert result.table("near_duplicates.csv") == [["c.png", "b.png"]]


def test_of_near_pictures_on_two_sides_the_one_nearer_to_training_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for seed in range(30):
        (raw / f"{seed:02d}.png").write_bytes(encoded(scene(seed)))
        (raw / f"{seed:02d} again.jpg").write_bytes(encoded(scene(seed), "JPEG", quality=80))
    plain = ingest(raw, "plain", resolution=32, channels=3)
    assert plain.counts["kept"] == 60
    sides = {row["source"]: ("train", "fit", "heldout").index(row["split"]) for row in plain.rows}
    result = ingest(raw, resolution=32, channels=3, near_duplicates=NEAR)
    straddling = 0
    for seed in range(30):
        first, second = sorted((f"{seed:02d}.png", f"{seed:02d} again.jpg"), key=sides.__getitem__)
        if sides[first] == sides[second]:
            assert first not in result.refused and second not in result.refused
            assert sorted((first, second), reverse=True) in result.table("near_duplicates.csv")
            continue
        straddling += 1
        assert result.refused[first].startswith(f"near duplicate: of {second} (")
        assert second not in result.refused
    assert straddling == result.counts["refused"] >= 10
    by_side = {row["source"].split(".")[0].removesuffix(" again"): set() for row in result.rows}
    for row in result.rows:
        by_side[row["source"].split(".")[0].removesuffix(" again")].add(row["split"])
    assert all(len(where) == 1 for where in by_side.values()), "no picture lies on two sides"


@pytest.mark.parametrize("setting", ["group", "groups"])
def test_where_near_pictures_are_too_many_the_ways_out_are_told(tmp_path: Path, setting: str) -> None:
    """A group is advised, by the name that the source has for it."""
    drawn(tmp_path / "raw", a=("train", 0), b=("heldout", 3))
    (tmp_path / "raw" / "list.csv").write_text("file\na.png\nb.png\n")
    settings = {"file": "list.csv", "images": ".", "path": "file", "label": None, "group": None, "attributes": ()}
    source: Any = (
        manifest.Config(name="manifest", unlisted="refuse", **settings) if setting == "group" else CONFIG.source
    )
    way = f"`{setting}` in ingest.source, or "
    said = f"raise ingest.max_refused_share; against near duplicates, set {way}other limits in ingest.near_"
    with pytest.raises(ValueError, match=said):
        ingest(tmp_path / "raw", source=source, resolution=32, channels=3, near_duplicates=NEAR, max_refused_share=0.05)


def test_pictures_that_only_look_alike_from_afar_are_kept(tmp_path: Path) -> None:
    """Equal hashes are not enough: the pixels must be near, too."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for seed in range(20):
        (raw / f"{seed}.png").write_bytes(encoded(scene(seed)))
        (raw / f"{seed} darker.png").write_bytes(encoded(scene(seed).point(lambda level: level * 0.8)))
    result = ingest(raw, resolution=32, channels=3, near_duplicates=NEAR)
    assert result.counts["kept"] == 40 and not result.table("near_duplicates.csv")
