"""The datasheet: what the images are and why we may use them (Gebru et al., "Datasheets for datasets", 2021)."""

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from stages.common.yaml_files import read_yaml
from stages.ingest._declares import check_declares
from stages.ingest._licences import check_licence

# Texts that must say something; `none` does not.
REQUIRED = (
    "name", "source", "licence", "spdx", "legal_basis", "intended_use", "motivation", "composition", "collection",
    "consent", "retention", "contact",
)  # fmt: skip
NONE_IS_AN_ANSWER = ("personal_data", "sensitive_attributes")
LISTS = ("allowed_use",)
TEXTS = ("labels", "known_limits", "citation")  # optional ones; here, too, `none` is an answer
OPTIONAL = (*TEXTS, "url", "published", "version", "covers", "declares", "notes")
_FORMS = (
    ("url", r"https?://[^\s<>\"]+", "an address that begins with http:// or https://"),
    ("published", r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?", "a date such as 2026-11-22, 2026-11 or 2026"),
    ("version", r"\d+(\.\d+){0,2}", "a version such as 1.0.0"),
    ("covers", r"[0-9a-f]{64}", "a SHA-256 in hexadecimal"),
)
_NOTHING = {"", "~", "-", "?", "null", "none", "n/a", "todo", "tbd", "unknown"}


def read_datasheet(path: Path, uses: Sequence[str]) -> dict[str, Any]:
    """The datasheet as texts, lists and mappings. Raises ValueError if a field is missing, says nothing, is unknown or
    occurs twice, or if the licence is unknown or forbids one of `uses`."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; --datasheet takes a YAML file, see docs/data.md")
    sheet = read_yaml(path, texts=True)
    if not isinstance(sheet, dict):
        raise ValueError(f"{path} must hold fields such as `licence: CC BY 4.0`; see docs/data.md")
    _check_names(sheet, path)
    for field in (*REQUIRED, *NONE_IS_AN_ANSWER, *TEXTS):
        if field in sheet:
            _check_text(sheet, field, path)
    allowed = sheet["allowed_use"] if isinstance(sheet.get("allowed_use"), list) else None
    if allowed is None or not all(isinstance(use, str) for use in allowed):
        raise ValueError(f"{path}: `allowed_use` must be a list; received {sheet.get('allowed_use')!r}")
    for field, form, words in _FORMS:
        value = sheet.get(field)
        if field in sheet and not (isinstance(value, str) and re.fullmatch(form, value) and _exists(field, value)):
            raise ValueError(f"{path}: `{field}` must be {words}; received {value!r}")
    check_declares(sheet.get("declares", {}), f"{path}: `declares")
    return sheet | {"spdx": check_licence(sheet, uses, str(path))}


def _check_names(sheet: dict[str, Any], path: Path) -> None:
    needed = (*REQUIRED, *NONE_IS_AN_ANSWER, *LISTS)
    known = (*needed, *OPTIONAL)
    strange = [key for key in sheet if key not in known]
    for field in needed:
        if field not in sheet:
            near = difflib.get_close_matches(field, [str(key) for key in strange], n=1)
            hint = f" (is `{near[0]}` a misspelling of it?)" if near else ""
            raise ValueError(
                f"{path}: `{field}` must say in words what holds for these images; it is missing{hint}; "
                "see docs/data.md"
            )
    if strange:
        near = difflib.get_close_matches(str(strange[0]), known, n=1)
        hint = f" (did you mean `{near[0]}`?)" if near else ""
        raise ValueError(f"{path}: `{strange[0]}` is not a field of a datasheet{hint}; put it under `notes`")


def _check_text(sheet: dict[str, Any], field: str, path: Path) -> None:
    value = sheet[field]
    nothing = _NOTHING - ({"none"} if field not in REQUIRED else set())
    by_attribute = field == "sensitive_attributes" and isinstance(value, dict) and value
    texts = list(value.values()) if by_attribute else [value]
    if not all(isinstance(text, str) and text.strip().lower() not in nothing for text in texts):
        more = ", or be left out" if field in TEXTS else ""
        raise ValueError(
            f"{path}: `{field}` must say in words what holds for these images{more}; received {value!r}; see "
            "docs/data.md"
        )


def _exists(field: str, value: str) -> bool:
    """Whether a date of the form YYYY[-MM[-DD]] is in the calendar."""
    if field == "published":
        try:
            date.fromisoformat((value + "-01-01")[:10])
        except ValueError:
            return False
    return True


def content_hash(files: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over (sha256, source) of files, sorted by the bytes of the source, as sha256sum writes them."""
    digest = hashlib.sha256()
    # One byte string per file, because there may be millions; 0 sorts before any byte that a name can hold.
    for line in sorted(source.encode() + b"\0" + sha.encode() for sha, source in files):
        source, _, sha = line.rpartition(b"\0")
        digest.update(sha + b"  " + source + b"\n")
    return digest.hexdigest()


def check_covers(sheet: dict[str, Any], found: str, datasheet: Path, raw: Path) -> None:
    """Raise ValueError if `covers` in the datasheet is not `found`, the content hash of these images."""
    if sheet["covers"] != found:
        raise ValueError(
            f"{datasheet} describes {sheet['name']} alone, but {raw} holds other images (content {found}, "
            f"not {str(sheet['covers'])[:12]}); write a datasheet for yours: copy it, fill in its fields, and "
            "leave out `covers` (docs/data.md shows one)"
        )
