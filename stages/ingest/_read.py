"""Records and pixels of all samples of a listing, decoding only what the state folder does not hold."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from tqdm import tqdm

from stages.common.files import sha256_file, to_json
from stages.ingest._decode import Rules
from stages.ingest._pack import Index, Pack, read_pack, record_type, remove_pack, remove_partials
from stages.ingest._pool import decode_all
from stages.ingest._sample import Listing
from stages.ingest._worker import PACK, Job, Task

_CODE = (  # that cached samples depend on: the worker, the search for near duplicates, and all that these load
    "_archives.py",
    "_cells.py",
    "_colour.py",
    "_copies.py",
    "_decode.py",
    "_near.py",
    "_pack.py",
    "_pool.py",
    "_published.py",
    "_read.py",
    "_records.py",
    "_sample.py",
    "_texts.py",
    "_tree.py",
    "_worker.py",
)
_LEAST = 32  # images per task at least, if there are that many
_KEPT = 4  # folders kept for other settings or other raw data


class Refusal(NamedTuple):
    """A sample that is not used; its SHA-256 if its content was read, `partner` if another image is the reason."""

    source: str
    reason: str
    sha256: str = ""
    partner: str = ""


Refusals = list[Refusal]


@dataclass(frozen=True)
class Samples:
    """Decoded samples in store order; `rows` are indices into the listing, `pack` and record["place"] say where the
    pixels lie, of `shape` (H, W, C) each."""

    rows: NDArray[np.int64]
    records: NDArray[np.void]
    pack: NDArray[np.int64]
    packs: list[Pack]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, chosen: NDArray[Any] | slice) -> "Samples":
        """The samples at these indices, or under this mask; no copy is made if the mask selects all."""
        if isinstance(chosen, np.ndarray) and chosen.dtype == np.bool_ and chosen.all():
            return self
        return Samples(self.rows[chosen], self.records[chosen], self.pack[chosen], self.packs, self.shape)

    def pixels(self, at: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """uint8 [n, H, W, C] of the samples at these indices."""
        owner, place = self.pack[at], self.records["place"][at]
        images = np.empty((len(owner), *self.shape), np.uint8)
        for pack in np.unique(owner):
            mine = owner == pack
            images[mine] = self.packs[pack].pixels(place[mine])
        return images


def work_folder(state: Path, raw: Path, rules: Rules, source: str) -> Path:
    """The folder for decoded samples of `raw` under these rules: another one whenever what makes them changes."""
    here = Path(__file__).parent
    code = [sha256_file(here / name) for name in (*_CODE, f"sources/{source}.py")]
    code += [sha256_file(here.parents[1] / "gan" / "attributes.py")]
    made_by = {"rules": asdict(rules), "raw": str(raw.resolve()), "code": code, "pillow": PIL.__version__}
    return state / "ingest" / hashlib.sha256(to_json(made_by | {"numpy": np.__version__}).encode()).hexdigest()[:24]


def read_samples(job: Job, listing: Listing, processes: int) -> tuple[Samples, Refusals, NDArray[np.void], list[Pack]]:
    """The usable samples, the refusals, the SHA-256 [len(listing)] of all content (zeros if it was not read), and the
    packs of which less than a quarter is still in use."""
    remove_partials(job.folder)
    kind = record_type(job.rules.channels)
    index = Index(job.folder, kind)
    at = index.by_stamp(listing.stamps)  # before anything is copied: sorting takes memory
    packs, found = list(index.packs), [_kept(index.records)]
    missing, total = np.flatnonzero(at < 0), len(index.records)
    done = len(listing) - len(missing)
    with tqdm(total=len(listing), initial=done, desc="ingest", unit="image", disable=None) as bar:
        size = min(PACK, max(_LEAST, -(-len(missing) // max(1, processes))))  # even a few images occupy all processes
        tasks, processes = _tasks(listing, missing, size), min(processes, -(-len(missing) // size))
        for task, names in decode_all(job, tasks, index, processes):
            start = 0
            for name, length in names or ():
                fresh = read_pack(job.folder, name, kind)
                assert fresh is not None and fresh[0].length == length, f"the state folder changed: {job.folder}"
                packs.append(fresh[0])
                found.append(_kept(fresh[1]))
                at[task.rows[start : start + length]] = np.arange(total, total + length)
                start, total = start + length, total + length
            bar.update(len(task))
    del index
    records = np.concatenate(found) if len(found) > 1 else found[0]
    del found
    pack = np.repeat(np.arange(len(packs)), [one.length for one in packs])
    used = np.bincount(pack[at[at >= 0]], minlength=len(packs))
    stale = [one for one, count in zip(packs, used, strict=True) if 4 * count < one.length]
    return *_gathered(job, listing, packs, pack, records, at), stale


def _tasks(listing: Listing, missing: NDArray[np.int64], size: int) -> Iterator[Task]:
    """The missing rows in tasks of `size`; what must be read together stays together."""
    chains = listing.chains[missing]
    order = np.argsort(chains, kind="stable")
    missing, chains = missing[order], chains[order]
    start = number = 0
    while start < len(missing):
        end = min(start + size, int(np.searchsorted(chains, chains[start], "right")))
        if chains[start] >= 0:
            end = int(np.searchsorted(chains, chains[start], "right"))
        rows = missing[start:end]
        units, places = listing.units.raw(rows), listing.places.take(rows)
        if chains[start] >= 0:  # by place in the stream
            by_place = sorted(range(len(rows)), key=lambda at: int(places[at].split()[0]))
            rows, units, places = rows[by_place], [units[at] for at in by_place], [places[at] for at in by_place]
        yield Task(number, rows, units, places, listing.stamps[rows])
        start, number = end, number + 1


def _gathered(
    job: Job,
    listing: Listing,
    packs: list[Pack],
    pack: NDArray[np.int64],
    records: NDArray[np.void],
    at: NDArray[np.int64],
) -> tuple[Samples, Refusals, NDArray[np.void]]:
    """Samples, refusals, content hashes: row i of the listing is record `at[i]` (-1: none), record j in `pack[j]`."""
    place = np.where(at >= 0, records["place"][at], -1) if len(records) else at
    starts = np.cumsum([0, *(one.length for one in packs)])
    hashes = np.zeros(len(listing), "V32")
    hashes[at >= 0] = records["sha256"][at[at >= 0]]
    bad = np.flatnonzero(place < 0)
    names, hexes = listing.sources.take(bad), hex_digests(hashes[bad])
    refused = []
    for row, name, digest in zip(at[bad], names, hexes, strict=True):
        reason = "crashed: the decoder died of it"
        if row >= 0:
            reason = packs[pack[row]].reasons[int(row - starts[pack[row]])]
        refused.append(Refusal(name, reason, digest if digest.strip("0") else ""))
    good = np.flatnonzero(place >= 0)
    shape = (job.rules.resolution, job.rules.resolution, job.rules.channels)
    return Samples(good, records[at[good]], pack[at[good]], packs, shape), refused, hashes


def _kept(records: NDArray[np.void]) -> NDArray[np.void]:
    """What is still needed once samples have been found by their stamps; there may be millions."""
    fields = [name for name in records.dtype.names or () if name != "stamp"]
    kept = np.empty(len(records), [(name, records.dtype[name]) for name in fields])
    for name in fields:
        kept[name] = records[name]
    return kept


def hex_digests(digests: NDArray[np.void]) -> list[str]:
    """Each V32 in hexadecimal."""
    text = digests.tobytes().hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def prune(folder: Path, stale: list[Pack]) -> None:
    """Remove these packs, which nobody may still be reading, and the folders used longest ago."""
    for pack in stale:
        remove_pack(pack)
    folder.touch()
    others = sorted((path for path in folder.parent.iterdir() if path != folder), key=lambda path: path.stat().st_mtime)
    for path in others[: -_KEPT or None]:
        shutil.rmtree(path, ignore_errors=True)
