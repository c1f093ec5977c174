"""Look for new data: commits that move a pointer (`.dvc`, `dvc.lock`), and what the sources of `work.sources` hold.

A change that is found twice in a row, so that nobody is still copying, is reported once, as the Prefect event
`ganops.data.changed`. The event is a hint: it carries a digest for people, and a run that it starts looks for itself.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from flows.state import alone
from flows.work.repository import git, head
from flows.work.sources import pointers
from stages.common.files import read_json, write_json

EVENT, RESOURCE = "ganops.data.changed", "ganops.data"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """Digest of the data that the branch and its sources name, and whether that is news to report."""

    digest: str
    news: bool
    told: str


def look(project: Path, state: Path, tell: Callable[[str], None]) -> Look:
    """Look once; `tell` gets the digest if the data changed and are stable now. Raises ValueError as `head` does."""
    with alone(state, "watch"):
        path = state / "watch.json"
        before = read_json(path) if path.is_file() else {}
        digest = data_digest(project, state, head(project))
        seen, known = before.get("seen"), before.get("known", digest)  # the first look takes what it finds as known
        news = digest == seen and digest != known
        if news:
            tell(digest)
            known = digest
        write_json(path, {"format": 1, "seen": digest, "known": known})
    words = "changed, now stable" if news else "changed; reported when stable" if digest != known else "as before"
    return Look(digest=digest, news=news, told=f"data {digest[:12]}: {words}")


def data_digest(project: Path, state: Path, commit: str) -> str:
    """SHA-256 over the pointers of `commit` and over what its imported sources hold now."""
    entries = [line for line in git(project, "ls-tree", "-r", "-z", commit).split("\0") if line]
    chosen = [line for line in entries if line.endswith((".dvc", "\tdvc.lock"))]
    text = json.dumps([sorted(chosen), pointers(project, state, commit)])
    return hashlib.sha256(text.encode()).hexdigest()
