"""What GPUs hold and do, asked without starting to use one: by NVML where its Python package is there, else by torch once it uses them."""

import os
import sys
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def nvml() -> Any:
    """NVML's Python module, ready to be asked; None where the package or the driver is missing."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def visible(count: int) -> list[int | str]:
    """The GPUs of `count` that this process may use, as NVML names them: numbers, or the ids that CUDA_VISIBLE_DEVICES gives."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is None:
        return list(range(count))
    names: list[int | str] = [int(name) if name.isdigit() else name for each in told.split(",") if (name := each.strip())]
    return [name for name in names if (isinstance(name, str) and name.startswith("GPU-")) or (isinstance(name, int) and name < count)]


def handles() -> dict[str, Any]:
    """Number -> NVML's handle of the GPUs that this process may use."""
    library = nvml()
    if library is None:
        return {}
    found = {}
    for name in visible(library.nvmlDeviceGetCount()):
        by_name = library.nvmlDeviceGetHandleByUUID if isinstance(name, str) else library.nvmlDeviceGetHandleByIndex
        handle = by_name(name)
        found[str(library.nvmlDeviceGetIndex(handle))] = handle
    return found


def gpu_memory() -> dict[str, float]:
    """GPU -> bytes in use, by whomever."""
    found = {number: float(nvml().nvmlDeviceGetMemoryInfo(handle).used) for number, handle in handles().items()}
    if found:
        return found
    cuda = used_cuda()
    for device in [] if cuda is None else range(cuda.device_count()):
        if cuda.memory_reserved(device):  # asking another would begin to use it
            free, total = cuda.mem_get_info(device)
            found[str(device)] = float(total - free)
    return found


def gpu_utilization() -> dict[str, float]:
    """GPU -> percent of the last moments in which it worked; only NVML tells."""
    found = {}
    for number, handle in handles().items():
        try:
            found[number] = float(nvml().nvmlDeviceGetUtilizationRates(handle).gpu)
        except nvml().NVMLError:
            continue  # a GPU that is divided among several does not tell
    return found


def gpu_peak() -> int:
    """The most bytes that torch held on GPUs in this process since `reset_gpu_peak`."""
    cuda = used_cuda()
    return 0 if cuda is None else sum(int(cuda.max_memory_reserved(device)) for device in range(cuda.device_count()))


def reset_gpu_peak() -> None:
    """Count the peak from here."""
    cuda = used_cuda()
    for device in [] if cuda is None else range(cuda.device_count()):
        cuda.reset_peak_memory_stats(device)


def used_cuda() -> Any:
    """`torch.cuda` if this process has begun to use it; it is not imported or started for the asking."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda if cuda is not None and getattr(cuda, "is_initialized", bool)() else None
