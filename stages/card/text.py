"""User strings in Markdown and YAML: class names, file names and licences come from outside and never act as markup."""

import re
from typing import Any

import yaml
from markupsafe import Markup

_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$!])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def plain(value: Any) -> Any:
    """Text on one line, with every character escaped that Markdown or HTML would act on; other values unchanged.

    Used as Jinja's `finalize`, so that a template cannot forget it; `Markup` is left unchanged.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    line = " ".join(_printable(value).split())
    return _MARKDOWN.sub(r"\\\1", line.translate(_ENTITIES))


def code(value: Any) -> Markup:
    """Text as a Markdown code span that also fits into a table cell."""
    line = " ".join(_printable(str(value)).split()).replace("`", "'").replace("|", "\\|")
    return Markup(f"`{line or ' '}`")  # a code span is literal: its only way out is the backtick


def number(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def slug(value: str) -> str:
    """Lower-case identifier of a licence or data set for the Hugging Face header: `CC BY 4.0` gives cc-by-4.0."""
    return re.sub(r"[^a-z0-9.]+", "-", value.casefold()).strip("-.") or "unknown"


def yaml_header(fields: dict[str, Any]) -> Markup:
    """Fields between the two `---` lines of a model card, every string quoted if YAML needs it."""
    return Markup("---\n" + yaml.safe_dump(fields, allow_unicode=True, sort_keys=False, width=10_000) + "---")


def _printable(value: str) -> str:
    """The text without control characters and bidirectional overrides, which could reorder what a reader sees."""
    return "".join(c if c.isprintable() else " " for c in value)
