"""Generators whose truth is known: stored images behind the ONNX interface, through the real stages and the real gate.

Thirty digits of each class are set aside before ingest, so that nothing of the pipeline has seen them. A generator
here holds images and a table from (latent, label) to one of them; the table knows the latents that evaluate and audit
will ask for, so that within each of their sets every image comes once, as a sample without replacement.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from gan.latents import labels, latents
from infra.digits import write_digits
from stages.audit import run as audit
from stages.card import run as card
from stages.common.files import read_json, sha256_file
from stages.config import load_section
from stages.config.audit import AuditConfig
from stages.config.card import CardConfig
from stages.config.evaluate import EvaluateConfig
from stages.config.export import ExportConfig
from stages.config.ingest import IngestConfig
from stages.config.reference import Fit, ReferenceConfig
from stages.config.train import TrainConfig
from stages.config.validate import ValidateConfig
from stages.evaluate import run as evaluate
from stages.export import run as export
from stages.export._network import Trained
from stages.ingest import run as ingest
from stages.reference import run as reference
from stages.store import Store, open_store
from stages.train import run as train
from stages.validate import run as validate

PROJECT = Path(__file__).resolve().parents[1]
CLASSES, ASIDE, Z_DIM, KEY = 10, 30, 16, 4  # KEY: components of a latent that tell it from all others
WIDTH = 24  # features; the 225 or so held-out images that are left carry no more than an eighth of their number
SETS = 10  # of evaluate: they share one pool, so that more of them would only make the intervals too short
SAMPLES = 275  # audited images: at least audit.min_group and at most ASIDE of each class

Images = NDArray[np.uint8]
Rows = NDArray[np.int64]
T = TypeVar("T")


def section(kind: type[T], name: str, **changes: Any) -> T:
    """A section of the project's params.yaml, with the changes that so few images force."""
    return dataclasses.replace(load_section(kind, PROJECT / "params.yaml", name), **changes)  # type: ignore[type-var]


@dataclasses.dataclass(frozen=True)
class World:
    """What all generators are judged against, and the images that nobody has seen."""

    folder: Path
    unseen: Images  # [CLASSES * ASIDE, H, W, C], by class
    store: Store
    evaluate: EvaluateConfig
    audit: AuditConfig

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """(seed, start, count) of the sets that the stages will draw: evaluate's, the classifier's, the audit's."""
        size, sets = len(self.store.splits["heldout"]), self.evaluate.sets
        yield from ((self.evaluate.seed, index * size, size) for index in range(sets))
        yield self.evaluate.seed, sets * size, len(self.store.splits["train"])
        yield self.audit.seed, 0, self.audit.samples


def make_world(folder: Path) -> World:
    """Set digits aside, and run the first three stages on the 1,497 others with the settings of params.yaml."""
    write_digits(folder / "raw")
    unseen = np.stack([_take_out(path) for path in _set_aside(folder / "raw")])
    sheet = yaml.safe_load((PROJECT / "data" / "datasheet.yaml").read_text(encoding="utf-8"))
    del sheet["covers"]  # these are not all of the images that it describes
    (folder / "datasheet.yaml").write_text(yaml.safe_dump(sheet), encoding="utf-8")
    images, passed = folder / "ingest", folder / "validate" / "passed.json"
    ingest(section(IngestConfig, "ingest"), raw=folder / "raw", datasheet=folder / "datasheet.yaml", out=images)
    validate(section(ValidateConfig, "validate"), images=images, out=passed.parent)
    settings = section(ReferenceConfig, "reference", extractor=Fit(name="fit", width=WIDTH))
    reference(settings, images=images, passed=passed, out=folder / "reference")
    store = open_store(images)
    judged = section(EvaluateConfig, "evaluate", seed=_seed(SETS, len(store.splits["heldout"]), 0), sets=SETS)
    audited = section(AuditConfig, "audit", samples=SAMPLES)
    audited = dataclasses.replace(audited, seed=_seed(1, SAMPLES, audited.min_group))
    return World(folder, unseen, store, judged, audited)


def _set_aside(raw: Path) -> list[Path]:
    """ASIDE files of each class, by class: those whose SHA-256 ends lowest. The splits look at its beginning."""
    folders = [raw / str(label) for label in range(CLASSES)]
    ordered = [sorted(folder.glob("*.png"), key=lambda path: sha256_file(path)[-16:]) for folder in folders]
    return [path for files in ordered for path in files[:ASIDE]]


def _take_out(path: Path) -> Images:
    """The image uint8 [H, W, 1] of a file, which is gone afterwards."""
    with Image.open(path) as image:
        levels = np.asarray(image, np.uint8)[..., None]
    path.unlink()
    return levels


def _seed(sets: int, size: int, least: int) -> int:
    """The first seed above 0 whose sets ask for each class `least` to ASIDE times, so that no image must come twice.

    It looks at labels alone, so that which images come is left to chance.
    """
    for seed in itertools.count(1):
        asked = labels(seed, 0, sets * size, _uniform()).reshape(sets, size)
        counts = np.stack([np.bincount(each, minlength=CLASSES) for each in asked])
        if least <= counts.min() and counts.max() <= ASIDE:
            return seed
    raise AssertionError


def _uniform() -> list[float]:
    return [1 / CLASSES] * CLASSES


class Stored(nn.Module):
    """Image `table[place of the nearest key to z, label]` of those stored; exact in FP16, so parity is not in question.

    (z [N, Z_DIM], label int64 [N]) -> [N, C, H, W] in [-1, 1].
    """

    keys: Tensor
    table: Tensor

    def __init__(self, images: Images, keys: NDArray[np.float32], table: Rows) -> None:
        """Images uint8 [K, H, W, C], keys [M, KEY] and table [M, CLASSES] of places among the images."""
        super().__init__()
        self.register_buffer("keys", torch.from_numpy(keys).half().float())
        self.register_buffer("table", torch.from_numpy(table).flatten())
        levels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
        self.images = nn.Parameter(levels.half().float())

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        wanted = z.half().float()[:, None, :KEY]
        nearest = (wanted - self.keys.float()).square().sum(2).argmin(1)
        return self.images.index_select(0, self.table.index_select(0, nearest * CLASSES + label))


def stored(world: World, images: Images, pools: list[Rows], *, copies: tuple[list[Rows], int] | None = None) -> Stored:
    """The generator that answers label c with an image of pools[c], each once a set until all of them have come.

    `copies` = (pools, every): image 0, every, 2 every, ... of each set comes from these pools instead.
    """
    rng = np.random.default_rng(0)
    keys, tables = [], []
    for seed, start, count in world.blocks():
        keys.append(latents(seed, start, count, Z_DIM)[:, :KEY])
        asked = labels(seed, start, count, _uniform())
        table = _dealt(rng, pools, asked)
        if copies is not None:
            copied = np.arange(0, count, copies[1])
            table[copied] = _dealt(rng, copies[0], asked[copied])
        tables.append(table)
    return Stored(images, np.concatenate(keys), np.concatenate(tables))


def _dealt(rng: np.random.Generator, pools: list[Rows], asked: Rows) -> Rows:
    """Places [len(asked), CLASSES]: those asked for run through their pool in a random order, again and again.

    Labels that are not asked for get images too: the page of pictures asks for every class at the same latents.
    """
    table = np.stack([rng.choice(pool, len(asked)) for pool in pools], axis=1)
    for label, pool in enumerate(pools):
        places = np.flatnonzero(asked == label)
        rounds = [rng.permutation(pool) for _ in range(-(-len(places) // len(pool)))]
        table[places, label] = np.concatenate([pool[:0], *rounds])[: len(places)]
    return table


def ship(world: World, name: str, generator: Stored | Path) -> Path:
    """The ONNX file of a stored generator, or of the folder of a trained one, by the stage export."""
    out, settings = world.folder / name / "export", section(ExportConfig, "export")
    if isinstance(generator, Path):
        export(settings, generator=generator, out=out)
        return out / "generator.onnx"
    folder = world.folder / name / "generator"
    folder.mkdir(parents=True)
    save_file(generator.state_dict(), folder / "generator.safetensors")
    info = {
        "z_dim": Z_DIM, "classes": world.store.classes, "resolution": 8, "channels": 1, "licence": "CC BY 4.0",
        "prior": _uniform(), "data_hash": world.store.info["data_hash"],
    }  # fmt: skip
    trained = Trained(generator, info, sha256_file(folder / "generator.safetensors"))
    # The one thing replaced: what stands in the folder is no architecture of gan/networks.
    with patch("stages.export._work.open_generator", lambda _: trained):
        export(settings, generator=folder, out=out)
    return out / "generator.onnx"


def judge(world: World, onnx: Path) -> dict[str, Any]:
    """The verdict on a file of `ship`, by evaluate, audit and card."""
    folder, known = onnx.parents[1], world.folder / "reference"
    evaluate(world.evaluate, onnx=onnx, reference=known, out=folder / "evaluate")
    audit(world.audit, onnx=onnx, reference=known, images=world.store.path, out=folder / "audit")
    summaries = [world.store.path, known, *(folder / stage for stage in ("export", "evaluate", "audit"))]
    passed = world.folder / "validate" / "passed.json"
    card(section(CardConfig, "card", registrable=False), summaries=summaries, passed=passed, out=folder / "card")
    return read_json(folder / "card" / "verdict.json")


def short_training(world: World, share: float) -> Path:
    """The folder of a generator trained for `share` of the budget of params.yaml, all its schedules cut alike."""
    full = section(TrainConfig, "train")
    lengths = (
        "total_kimg",
        "lr_kimg",
        "burn_in_kimg",
        "ema_halflife_start_kimg",
        "ema_halflife_kimg",
        "snapshot_kimg",
        "checkpoint_kimg",
    )
    cut = dataclasses.replace(full, **{name: getattr(full, name) * share for name in lengths})
    train(cut, images=world.store.path, passed=world.folder / "validate" / "passed.json", out=world.folder / "train")
    return world.folder / "train" / "generator"
