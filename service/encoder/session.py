"""Opens ONNX Runtime sessions, and explains why a device cannot be used."""

import ctypes
from pathlib import Path
from typing import Any

import onnxruntime as ort

from service.settings import Device

CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_LOG_FATAL_ONLY = 4
# The arena grows by the missing amount instead of doubling. Convolution algorithms are chosen by heuristics, because a
# search by trial takes seconds for every new length of a short clip.
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}


class DeviceError(Exception):
    """The required device cannot be used."""


def open_session(model: Path, device: Device, threads: int = 1, *, engines: Path | None = None) -> ort.InferenceSession:
    """Open a session.

    Args:
        model: file of the graph.
        device: device to run on.
        threads: number of threads of one run on a CPU.
        engines: folder where TensorRT caches its engines. None to build them at every start.

    Raises:
        DeviceError: `cuda` or `tensorrt` is required and does not work here.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads are faster if nothing else runs. Here the event loop needs a core too, and the latency of single
    # requests was higher with spinning, both the median and the 99th percentile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device is Device.AUTO:
        # Without a GPU the runtime logs missing CUDA libraries as an error. With `auto` that is expected.
        ort.set_default_logger_severity(_LOG_FATAL_ONLY)
    session = ort.InferenceSession(str(model), options, providers=_providers(device, engines))
    # The runtime lists providers it was built with and falls back silently. Only the session has the actual one.
    wanted = {Device.CUDA: _CUDA, Device.TENSORRT: _TENSORRT}.get(device)
    if wanted is not None and session.get_providers()[0] != wanted:
        raise DeviceError(
            f"OFFKEY_DEVICE={device.value}, but the model runs on {session.get_providers()[0]}: {_problem(wanted)} "
            "Install the NVIDIA driver, CUDA, cuDNN and, for tensorrt, TensorRT as onnxruntime requires, or set "
            "OFFKEY_DEVICE=cpu."
        )
    return session


def runs_on_cpu(session: ort.InferenceSession) -> bool:
    """Return whether a session runs on the CPU only."""
    return bool(session.get_providers()[0] == CPU)


def _providers(device: Device, engines: Path | None) -> list[str | tuple[str, dict[str, Any]]]:
    available = ort.get_available_providers()
    providers: list[str | tuple[str, dict[str, Any]]] = [CPU]
    if device is not Device.CPU and _CUDA in available:
        providers.insert(0, (_CUDA, _CUDA_OPTIONS))
    if device is Device.TENSORRT and _TENSORRT in available:
        options: dict[str, Any] = {}
        if engines is not None:
            engines.mkdir(parents=True, exist_ok=True)
            options = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(engines)}
        providers.insert(0, (_TENSORRT, options))
    return providers


def _problem(provider: str) -> str:
    if provider not in ort.get_available_providers():
        return f"this onnxruntime was built without {provider} (onnxruntime-gpu has it)."
    name = "tensorrt" if provider == _TENSORRT else "cuda"
    library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return f"{error}."
    return "no usable GPU was found."
