"""onnxruntime as the consumer uses it: quiet, repeatable, and only on providers that can really load."""

import contextlib
import ctypes
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

onnxruntime.disable_telemetry_events()

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_CAPABILITY = (75, 76)  # CUDA's numbers for two attributes of a device: compute capability, major and minor
_LEAST = (7, 5)  # compute capability that onnxruntime-gpu for CUDA 13 has kernels for

# onnxruntime's exceptions have no base class in common.
RUNTIME_ERRORS: tuple[type[Exception], ...] = tuple(
    kind for kind in vars(_state).values() if isinstance(kind, type) and issubclass(kind, Exception)
)


def choose_providers(wanted: Sequence[str] | None) -> list[str]:
    """Providers in order of preference: `wanted`, or by default CUDA if it can load, then the CPU.

    Raises ValueError for an unknown provider, and for CUDA if it cannot load: asked for by name, it is never silently
    replaced.
    """
    if wanted is None:
        return [CUDA, CPU] if why_no_cuda() is None else [CPU]
    known = onnxruntime.get_available_providers()
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ValueError(f"providers must be among {', '.join(known)}; received {list(wanted)}")
    reason = why_no_cuda() if CUDA in wanted else None
    if reason:
        raise ValueError(f"{CUDA} cannot be used here: {reason}; leave out providers to run on what is available")
    return list(wanted)


def why_no_cuda() -> str | None:
    """Why CUDA cannot be used, or None if it can.

    Found by loading the libraries as onnxruntime would: asking onnxruntime prints a red error on failure.
    """
    if CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime was built without it (pip install onnxruntime-gpu instead of onnxruntime)"
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0)
    except OSError:
        return "the NVIDIA driver is not installed (libcuda.so.1)"
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver finds no device"
    if (capability := _capability(driver)) < _LEAST:
        found, least = (".".join(map(str, version)) for version in (capability, _LEAST))
        return f"the GPU has compute capability {found}, but onnxruntime-gpu needs {least} or higher"
    with contextlib.redirect_stdout(io.StringIO()):  # CUDA and cuDNN from pip's nvidia-* packages, if installed
        onnxruntime.preload_dlls()
    libraries = Path(_state.__file__).parent
    try:
        for name in ("shared", "cuda"):
            ctypes.CDLL(str(libraries / f"libonnxruntime_providers_{name}.so"), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return f"a library is missing ({error})"
    return None


def _capability(driver: Any) -> tuple[int, ...]:
    """Compute capability of the first device; onnxruntime loads even if it has no kernels for it, and fails later."""
    numbers = [ctypes.c_int(0) for _ in _CAPABILITY]
    for number, attribute in zip(numbers, _CAPABILITY, strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0)
    return tuple(number.value for number in numbers)


def open_session(content: bytes, providers: Sequence[str], threads: int) -> Any:
    """A session on a model's bytes with `threads` CPU threads.

    Raises ValueError if onnxruntime refuses the model, or does not run it on the first provider.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # refusals arrive as exceptions; the red lines beside them add nothing
    settings = {
        "session.intra_op.allow_spinning": "0",  # waiting threads leave the cores to others
        "session.load_model_format": "ONNX",  # never onnxruntime's own format, which was not checked
    }
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=list(providers))
    except RUNTIME_ERRORS as error:
        raise ValueError(f"onnxruntime {onnxruntime.__version__} refuses it: {' '.join(str(error).split())}") from None
    if session.get_providers()[0] != providers[0]:
        raise ValueError(
            f"onnxruntime could not start {providers[0]} and fell back to {session.get_providers()[0]}; pass the latter"
        )
    return session
