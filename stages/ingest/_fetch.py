"""Fetch a published file: it is verified before it is placed, and never half there. Ingest itself never loads this."""

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from stages.ingest._records import md5_of

_SECONDS, _PIECE = 60, 2**20  # seconds without a byte before a download is given up; bytes per read


def fetch(address: str, target: Path, md5: str) -> None:
    """Place the file with this MD5 at `target`, unless it is already there.

    Raises ValueError if the address is not http(s), cannot be reached, or gives a file with another digest.
    """
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"--mirror must be an http(s) address; received {address!r}")
    if target.is_file() and md5_of(target) == md5:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer, partial.open("wb") as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
        found = md5_of(partial)
        if found != md5:
            raise ValueError(
                f"{address} has MD5 {found}, but torchvision states {md5}: a damaged or another file; nothing was kept"
            )
        partial.replace(target)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(
            f"{address} could not be fetched ({reason}); without a network, bring it from another machine to "
            f"{target} (its MD5 is {md5})"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
