"""What licences forbid, by SPDX id, and whether that leaves room for what the data are used for.

Licence texts are not interpreted here: only what the ids themselves say is known, and the datasheet's `allowed_use`
says the rest.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from stages.config.ingest import same_licence
from stages.ingest._spdx import IDS

USES = ("internal", "research", "commercial", "publication")
_OWN = "LicenseRef-"  # prefix for terms that are on no list (SPDX specification, annex "License expressions")
_KNOWN = {name.casefold(): name for name in IDS}  # SPDX compares ids without regard to case
_NON_COMMERCIAL = {"NCGL-UK-2.0", "PolyForm-Noncommercial-1.0.0"}  # besides those of Creative Commons


def check_licence(sheet: dict[str, Any], uses: Sequence[str], where: str) -> str:
    """The SPDX id of the licence as SPDX spells it. Raises ValueError if there is no such id, if the licence or the
    datasheet forbids one of `uses`, or if the two contradict each other."""
    spdx, allowed = str(sheet["spdx"]), list(sheet["allowed_use"])
    found = _canonical(spdx)
    if found is None:
        near = difflib.get_close_matches(spdx.casefold(), list(_KNOWN), n=1, cutoff=0.8)
        hint = f" (did you mean {_KNOWN[near[0]]}?)" if near else ""
        raise ValueError(
            f"{where}: `spdx` must be the SPDX id of the licence, such as CC-BY-4.0, or {_OWN}<name> for terms of your "
            f"own; received {spdx!r}{hint}; without a licence nobody may use these images"
        )
    for use in allowed:
        if use not in USES:
            raise ValueError(f"{where}: `allowed_use` must list some of {', '.join(USES)}; received {use!r}")
    forbidden = _forbidden(found)
    for use in allowed:
        if use in forbidden:
            raise ValueError(f"{where}: `allowed_use` names {use}, which the licence {spdx} forbids; take it out")
    for use in uses:
        if use in forbidden:
            raise ValueError(
                f"the licence {spdx} of {sheet['name']} forbids {_words(use)}, which ingest.use in params.yaml "
                "declares; use other images, or remove that use and do without it"
            )
        if use not in allowed:
            raise ValueError(
                f"{where} does not allow {_words(use)}, which ingest.use in params.yaml declares; it allows "
                f"{', '.join(allowed) or 'nothing'}: use other images, or remove that use and do without it"
            )
    return found


def check_accepted(sheet: dict[str, Any], licences: Sequence[str], uses: Sequence[str]) -> None:
    """Raise ValueError if the licence, in the datasheet's words, is not among `licences`; case does not count."""
    if same_licence(str(sheet["licence"])) not in map(same_licence, licences):
        raise ValueError(
            f"the licence {sheet['licence']!r} of {sheet['name']} is not among ingest.licences in params.yaml "
            f"({', '.join(licences)}), those you accept for the uses in ingest.use ({', '.join(uses)}); read it and "
            "add it there, or use other images"
        )


def _canonical(spdx: str) -> str | None:
    """The id as SPDX spells it; None if there is no such id."""
    own = re.fullmatch(rf"{_OWN}([A-Za-z0-9.-]+)", spdx, re.IGNORECASE)
    return f"{_OWN}{own[1]}" if own else _KNOWN.get(spdx.casefold())


def _forbidden(spdx: str) -> set[str]:
    """Uses that the id of a licence excludes: NC excludes commercial use, ND publication of what is made of the images.

    Whether a generator is made of them in that sense is undecided, so it is taken to be.
    """
    if spdx in _NON_COMMERCIAL:
        return {"commercial"}
    terms = spdx.split("-")
    if terms[0] != "CC":
        return set()
    return {use for term, use in (("NC", "commercial"), ("ND", "publication")) if term in terms}


def _words(use: str) -> str:
    return {"commercial": "commercial use", "publication": "publication of what is made of them"}.get(use, f"{use} use")
