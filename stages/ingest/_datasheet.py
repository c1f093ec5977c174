"""The datasheet: what the images are and why we may use them (Gebru et al., "Datasheets for datasets", 2021)."""

import difflib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

REQUIRED = ("name", "source", "licence", "legal_basis")
_NOTHING = {"", "~", "-", "?", "null", "none", "n/a", "todo", "tbd", "unknown"}


def read_datasheet(path: Path) -> dict[str, Any]:
    """The datasheet as texts, lists and mappings. Raises ValueError where a required field says nothing."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; --datasheet takes a YAML file, see docs/data.md")
    try:
        # The base loader keeps every value as the text that was written: no dates, and `no` stays `no`.
        sheet = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(sheet, dict):
        raise ValueError(f"{path} must hold fields such as `licence: CC BY 4.0`; see docs/data.md")
    for field in REQUIRED:
        value = sheet.get(field)
        if not isinstance(value, str) or value.strip().lower() in _NOTHING:
            near = difflib.get_close_matches(field, [str(key) for key in sheet if key not in REQUIRED], n=1)
            hint = f" (did you mean it by `{near[0]}`?)" if field not in sheet and near else ""
            found = f"received {value!r}" if field in sheet else f"it is missing{hint}"
            raise ValueError(
                f"{path}: `{field}` must say in words what holds for these images; {found}; see docs/data.md"
            )
    return sheet


def content_hash(files: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over (sha256, source) of files, sorted by the bytes of the source, as sha256sum writes them."""
    lines = sorted((source.encode(), sha) for sha, source in files)
    return hashlib.sha256(b"".join(sha.encode() + b"  " + source + b"\n" for source, sha in lines)).hexdigest()


def check_covers(sheet: dict[str, Any], found: str, datasheet: Path, raw: Path) -> None:
    """Raise ValueError where the datasheet names the images that it covers and these are others."""
    if sheet["covers"] != found:
        raise ValueError(
            f"{datasheet} describes {sheet['name']} alone and {raw} holds other images (content {found[:12]}, "
            f"it covers {str(sheet['covers'])[:12]}); write a datasheet for yours: copy it, fill in name, source, "
            "licence and legal_basis, and leave out `covers` (docs/data.md shows one)"
        )
