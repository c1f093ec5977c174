"""Format 1 of a generator file: what its metadata say, and the inputs and outputs that they imply."""

import dataclasses
import json
import re
from typing import Any

FORMAT = "1"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"  # as export.name; it becomes part of file names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What a generator file says about itself; `classes` and `prior` are empty if it takes no label."""

    name: str
    classes: tuple[str, ...]
    prior: tuple[float, ...]  # serving shares of the classes, sum 1
    resolution: int  # pixels a side
    channels: int  # 1 grey, 3 colour
    z_dim: int


def describe(metadata: dict[str, str]) -> Description:
    """Read the metadata of a generator file.

    Raises ValueError if they are not those of a ganops generator, are of another format version, or are broken.
    """
    if "format" not in metadata or "name" not in metadata:
        raise ValueError("it is an ONNX file, but not a generator that ganops exported (no format and name inside)")
    if metadata["format"] != FORMAT:
        raise ValueError(
            f"its format is {metadata['format']!r}, but this consumer reads format {FORMAT}; update ganops"
        )
    if not re.fullmatch(_NAME, metadata["name"]):
        raise ValueError(
            "its metadata `name` must be 1 to 63 letters, digits, dots, underscores or hyphens and begin with a letter "
            f"or digit; found {metadata['name'][:80]!r}"
        )
    if metadata.get("channels") not in ("1", "3"):
        raise ValueError(f"its metadata `channels` must be 1 (grey) or 3 (colour); found {metadata.get('channels')!r}")
    classes, prior = _list(metadata, "classes"), _list(metadata, "prior")
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) != len(classes):
        raise ValueError(f"its metadata `classes` must be a list of distinct names; found {metadata['classes']!r}")
    numbers = all(isinstance(share, int | float) and 0 <= share <= 1 for share in prior)
    if not numbers or len(prior) != len(classes) or (classes and abs(sum(prior) - 1) > 1e-6):
        raise ValueError(f"its metadata `prior` must hold one share per class, with sum 1; found {metadata['prior']!r}")
    return Description(
        name=metadata["name"],
        classes=tuple(classes),
        prior=tuple(map(float, prior)),
        resolution=_number(metadata, "resolution"),
        channels=int(metadata["channels"]),
        z_dim=_number(metadata, "z_dim"),
    )


def check_signature(session: Any, description: Description) -> None:
    """Raise ValueError unless an onnxruntime session takes and gives exactly what the description promises."""
    size = description.resolution
    inputs = {"z": ("tensor(float)", [None, description.z_dim])}
    if description.classes:
        inputs["label"] = ("tensor(int64)", [None])
    outputs = {"image": ("tensor(uint8)", [None, size, size, description.channels])}
    for kind, wanted, nodes in (("inputs", inputs, session.get_inputs()), ("outputs", outputs, session.get_outputs())):
        # A batch axis of any size has a name (or nothing) in place of a number.
        found = {node.name: (node.type, [n if isinstance(n, int) else None for n in node.shape]) for node in nodes}
        if found != wanted:
            raise ValueError(f"its {kind} must be {_signature(wanted)}; found {_signature(found)}")


def _signature(tensors: dict[str, tuple[str, list[int | None]]]) -> str:
    return ", ".join(
        f"{name} {kind[7:-1]} {str(shape).replace('None', 'N')}" for name, (kind, shape) in tensors.items()
    )


def _number(metadata: dict[str, str], key: str) -> int:
    text = metadata.get(key, "")
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise ValueError(f"its metadata `{key}` must be a whole number from 1 to 999999; found {text!r}")
    return int(text)


def _list(metadata: dict[str, str], key: str) -> list[Any]:
    text = metadata.get(key, "")
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise ValueError(f"its metadata `{key}` must be a JSON list; found {text!r}")
    return value
