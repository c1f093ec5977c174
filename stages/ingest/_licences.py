"""What licences forbid, by SPDX id, and whether that leaves room for what the data are used for.

A licence text is not understood here: the table knows what the names of licences say, and the datasheet's `allowed_use`
says the rest.
"""

import re
from collections.abc import Sequence
from typing import Any

USES = ("internal", "research", "commercial", "publication")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_OWN = "LicenseRef-"  # begins the name of terms that are on no list (SPDX specification, annex "License expressions")
_NONE = {"NONE", "NOASSERTION"}  # SPDX for: no licence was found; nobody looked


def check_licence(sheet: dict[str, Any], uses: Sequence[str], where: str) -> None:
    """Raise ValueError where the licence or the datasheet forbids one of `uses`, or the two contradict each other."""
    spdx, allowed = str(sheet["spdx"]), list(sheet["allowed_use"])
    if spdx.upper() in _NONE or not _ID.fullmatch(spdx):
        raise ValueError(
            f"{where}: `spdx` must be the SPDX id of the licence, such as CC-BY-4.0, or {_OWN}<name> for terms of your "
            f"own; received {spdx!r}; without a licence nobody may use these images"
        )
    for use in allowed:
        if use not in USES:
            raise ValueError(f"{where}: `allowed_use` must list some of {', '.join(USES)}; received {use!r}")
    forbidden = _forbidden(spdx)
    for use in allowed:
        if use in forbidden:
            raise ValueError(f"{where}: `allowed_use` names {use}, which the licence {spdx} forbids; take it out")
    for use in uses:
        if use in forbidden:
            raise ValueError(
                f"the licence {spdx} of {sheet['name']} forbids {_words(use)}, and ingest.use in params.yaml declares "
                "it; use other images, or take that use out and keep to it"
            )
        if use not in allowed:
            raise ValueError(
                f"{where} allows {', '.join(allowed) or 'nothing'} and not {_words(use)}, which ingest.use in "
                "params.yaml declares; use other images, or take that use out and keep to it"
            )


def _forbidden(spdx: str) -> set[str]:
    """Uses that the name of a Creative Commons licence excludes: NC commercial ones; ND to hand on what was made of
    the images, and whether a generator was is undecided, so that it counts. SPDX compares ids without regard to case.
    """
    terms = spdx.upper().split("-")
    if terms[0] != "CC":
        return set()
    return {use for term, use in (("NC", "commercial"), ("ND", "publication")) if term in terms}


def _words(use: str) -> str:
    return {"commercial": "commercial use", "publication": "publication of what is made of them"}.get(use, f"{use} use")
