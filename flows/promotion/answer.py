"""A person's answer about a version that waited for one, as stored in the version's tags."""

import json
from collections.abc import Mapping

WAITING, REFUSED = "waiting", "refused"  # decisions about a version


def refusal(tags: Mapping[str, str]) -> str | None:
    """Who refused the version with these tags and why, in words; None if nobody did."""
    said = json.loads(tags.get("approval", "null"))
    return None if said is None or said["approved"] else f"{said['approver']} refused it: {said['comment']}"
