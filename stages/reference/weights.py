"""`python -m stages.reference.weights NAME`: fetch a published extractor's weights and enter them in params.yaml.

The one command that fetches weights. The file goes to `$GANOPS_STATE/weights/`; its entry, with its SHA-256, to
`reference.published` of params.yaml, whose comments and layout stay as they are. If the publisher states digits of
the hash, they must match; if not, the hash found at this first use is what counts from then on.
"""

import argparse
import http.client
import json
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tqdm import tqdm

from stages.common.files import sha256_file
from stages.common.interrupt import interruptible
from stages.config.reference import PublishedExtractor
from stages.reference._entry import record
from stages.state import exclusive, state_folder

if TYPE_CHECKING:  # torch loads after the options are read
    from gan.features.weights import Source

_SECONDS = 60  # seconds without a byte before a download is given up
_PIECE = 1 << 20  # bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Parse options, fetch, verify, record; exit code 0, 1, or 130 if interrupted; a sentence on stderr."""
    names = get_args(PublishedExtractor.__annotations__["name"])
    resizes = get_args(PublishedExtractor.__annotations__["resize"])
    parser = argparse.ArgumentParser(prog="python -m stages.reference.weights", description=__doc__)
    parser.add_argument("name", choices=names, help="the extractor")
    parser.add_argument("--from", dest="origin", help="a file, or the http(s) address of a mirror; default: official")
    parser.add_argument("--resize", choices=resizes, help="default: that of the tool which defines its numbers")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings that get the entry")
    options = parser.parse_args(argv)
    interruptible(signal.SIGINT)
    try:
        entry = fetch(options.name, options.origin, options.resize)
        said = record(options.params, entry)
    except (ValueError, OSError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("interrupted; nothing was recorded")
        return 130
    _say(said)
    print(json.dumps(entry))  # noqa: T201
    return 0


def fetch(name: str, origin: str | None, resize: str | None) -> dict[str, str]:
    """Fetch the file of `name` from `origin` (None: its official address) and return its entry for params.yaml.

    Raises ValueError if it cannot be fetched, is cut short, is not the published file, or is of another network.
    """
    from gan.features.published import open_published
    from gan.features.weights import SOURCES
    from gan.metrics.protocols import NETWORKS

    source = SOURCES[name]
    folder = state_folder() / "weights"
    resize = resize or NETWORKS[name][1]
    with exclusive(folder):
        file = Path(source.file)
        if origin is not None and Path(origin).suffix == ".safetensors":
            file = file.with_suffix(".safetensors")
        partial = folder / f".partial-{file}"
        try:
            _bring(origin or source.url, partial, help=_help(name, resize, source, folder))
            sha256 = sha256_file(partial)
            if not sha256.startswith(source.prefix):
                raise ValueError(
                    f"{origin or source.url} has SHA-256 {sha256}, but that of the published {source.file} begins with "
                    f"{source.prefix}: it is another file or a damaged one; nothing was kept. (Weights that you "
                    "converted yourself can be entered in params.yaml by hand.)"
                )
            try:
                open_published(name, resize=resize, weights=partial, sha256=sha256)
            except ValueError as error:
                raise ValueError(str(error).replace(str(partial), origin or source.url)) from None
            partial.replace(folder / file)
        finally:
            partial.unlink(missing_ok=True)
    if not source.prefix:
        _say(f"the publisher states no hash of {source.file}; that of this file is recorded, any other will be refused")
    _say(f"kept as {folder / file}")
    return {"name": name, "resize": resize, "weights": str(file), "sha256": sha256}


def _bring(origin: str, target: Path, *, help: str) -> None:
    """Copy a local file, or download an address, to `target`."""
    if not origin.startswith(("http://", "https://")):
        if not Path(origin).is_file():
            raise ValueError(f"{origin} is not there; {help}")
        shutil.copyfile(origin, target)
        return
    try:
        with urllib.request.urlopen(origin, timeout=_SECONDS) as answer, target.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            with tqdm(total=size or None, desc=target.name, unit="B", unit_scale=True, disable=None) as bar:
                while piece := answer.read(_PIECE):
                    file.write(piece)
                    bar.update(len(piece))
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise ValueError(f"{origin} could not be fetched ({getattr(error, 'reason', error)}); {help}") from None
    if size and target.stat().st_size != size:  # http.client does not complain if a body ends early
        raise ValueError(
            f"{origin} broke off after {target.stat().st_size:,} of {size:,} bytes; nothing was kept, run it again"
        )


def _help(name: str, resize: str, source: "Source", folder: Path) -> str:
    known = f"its SHA-256 begins with {source.prefix}" if source.prefix else "its publisher states no hash"
    return (
        f"what is needed is {source.file} from {source.url} ({known}). Without a network, bring that file from another "
        f"machine and run `python -m stages.reference.weights {name} --resize {resize} --from FILE`, which places "
        f"it in {folder}"
    )


def _say(text: str) -> None:
    print(f"reference.weights: {text}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
