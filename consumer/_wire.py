"""The few parts of an ONNX file that must be known before onnxruntime may see it, read without the onnx package.

An ONNX file can name other files to read weights from; such names have been used to read what the caller never meant
to hand over (CVE-2024-27318, CVE-2026-34446). So the file is walked first, and refused if it points outside itself.
Field numbers: onnx.proto; encoding: the protobuf wire format.
"""

from collections.abc import Iterator

_DEEPEST = 32  # subgraphs within subgraphs; ours have none
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_METADATA = 14

# message -> field number -> message: every way from a model to a tensor
_WAYS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor


def read_metadata(content: bytes) -> dict[str, str]:
    """The `metadata_props` of an ONNX file's bytes.

    Raises ValueError if the bytes are not an ONNX model, or a tensor lies in another file.
    """
    view = memoryview(content)
    try:
        fields = list(_fields(view))
        if not {1, 7} <= {number for number, _ in fields}:  # ir_version and graph
            raise ValueError("the model has no graph")
        external = _points_outside(view, "model", 0)
        pairs = [dict(_fields(value)) for number, value in fields if number == _METADATA and not isinstance(value, int)]
        metadata = {_text(pair.get(1, b"")): _text(pair.get(2, b"")) for pair in pairs}
    except ValueError as error:
        raise ValueError(f"it is not an ONNX file ({error})") from None
    if external:
        raise ValueError("it keeps weights in another file, which is never read; a generator must be one file")
    return metadata


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field of one message. Raises ValueError if it is not a message."""
    position = 0
    while position < len(view):
        tag, after = _varint(view, position)
        # protobuf cuts a tag to 32 bits: a longer one would be a different field there than here.
        if tag >= 2**32 or after - position > max(1, -(-tag.bit_length() // 7)):
            raise ValueError(f"unexpected byte at {position}")
        number, kind, position = tag >> 3, tag & 7, after
        if kind == _VARINT:
            value, position = _varint(view, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = _varint(view, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"unexpected byte at {position}")
        if number == 0 or position + size > len(view):
            raise ValueError("it ends too early")
        yield number, view[position : position + size]
        position += size


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits per byte, low end first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            break
        byte = view[position]
        value, position = value | (byte & 127) << shift, position + 1
        if byte < 128:
            return value, position
    raise ValueError("it ends too early")


def _points_outside(view: memoryview, message: str, depth: int) -> bool:
    """Whether a tensor below this message says that its data lie in another file."""
    if depth > 4 * _DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    if message == "tensor":
        return any(number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value) for number, value in _fields(view))
    ways = _WAYS[message]
    return any(
        _points_outside(value, ways[number], depth + 1)
        for number, value in _fields(view)
        if number in ways and not isinstance(value, int)
    )


def _text(value: memoryview | int | bytes) -> str:
    return "" if isinstance(value, int) else bytes(value).decode("utf-8")
