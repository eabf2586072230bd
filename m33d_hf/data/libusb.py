"""Packages that link to the system's libusb, also where they only read files: RealSense's SDK, Open3D."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import TypeVar

from m33d_hf.errors import MissingDependencyError

Loaded = TypeVar("Loaded")


def with_libusb(load: Callable[[], Loaded], what: str, extra: str) -> Loaded:
    """What `load` imports; where the system has no libusb-1.0, that of the package libusb-package is loaded first.

    Args:
        load: imports a package.
        what: the package, for messages.
        extra: of this project, which installs libusb-package beside it.

    Raises:
        MissingDependencyError: libusb or another library of the system is missing. ModuleNotFoundError passes.
    """
    try:
        return load()
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        missing = error
    if "libusb" not in str(missing):
        raise MissingDependencyError(f"{what} is installed and cannot be loaded: {missing}") from missing
    try:
        ctypes.CDLL(str(importlib.import_module("libusb_package").get_library_path()), mode=ctypes.RTLD_GLOBAL)
        return load()
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"{what} is installed, but the system lacks libusb ({missing}): pip install 'm33d-hf[{extra}]' brings one "
            "(libusb-package), or install the system's: apt install libusb-1.0-0."
        ) from error
