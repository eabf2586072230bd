"""Registers M33D with `AutoModel`, ..., and its pipelines, on `import m33d_hf`, without importing what they need.

transformers is told of classes from outside by objects: its `register` methods want the class of the configuration and
of the model. Having those means having imported torch and transformers, which takes seconds, and `import m33d_hf` must
not take them. transformers looks for no plugins of its own accord, and its lazy lists of names are private and reach
its own folder only. Registering when one of our classes is first imported would leave out whoever writes
`import m33d_hf` and then works with `AutoModel` and `pipeline` alone. So a finder in front of `sys.meta_path` notices
when one of transformers' auto modules has been imported, and then our classes are registered there. Modules that are
there already are served at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from m33d_hf.modeling.auto_m33d import AUTO_MAP

_AUTO = "transformers.models.auto"
_OURS = "m33d_hf.modeling"
_CONFIGURATION = f"{_OURS}.configuration_m33d"
# Our modules build on these; while one of them is half imported, importing ours would fail.
_BASES = (
    "transformers.modeling_utils",
    "transformers.processing_utils",
    "transformers.image_processing_utils",
    "transformers.video_processing_utils",
)


# auto module -> Auto classes of it that take one of ours.
_AUTO_MODULES = {
    f"{_AUTO}.configuration_auto": ("AutoConfig",),
    f"{_AUTO}.modeling_auto": tuple(n for n in AUTO_MAP if n.startswith("AutoModel") or n == "AutoBackbone"),
    f"{_AUTO}.video_processing_auto": ("AutoVideoProcessor",),
    f"{_AUTO}.image_processing_auto": ("AutoImageProcessor",),
}


def _places(name: str) -> dict[str, str]:
    """Backend -> "module.Class" of what an Auto class takes; "torchvision" where it knows one backend."""
    entry = AUTO_MAP[name]
    return entry if isinstance(entry, dict) else {"torchvision": entry}


def _ours(name: str) -> str:
    """Our module that an Auto class takes its classes from."""
    return f"{_OURS}.{next(iter(_places(name).values())).split('.')[0]}"


def _register(name: str, auto_module: ModuleType, ours: ModuleType) -> None:
    """Tell one Auto class of our class, or classes."""
    auto = getattr(auto_module, name)
    if name == "PIPELINE_REGISTRY":
        for task, (pipeline, model) in ours.RGBD_TASKS.items():
            auto.register_pipeline(task, pipeline_class=pipeline, pt_model=model, type="multimodal")
            # By it transformers would write into saved configurations that loading needs trust_remote_code.
            del pipeline._registered_impl
        return
    classes = {backend: getattr(ours, place.split(".")[1]) for backend, place in _places(name).items()}
    if name == "AutoConfig":
        auto.register("m33d", ours.M33DConfig, exist_ok=True)
    elif name == "AutoImageProcessor":
        auto.register(ours.M33DConfig, image_processor_classes=classes, exist_ok=True)
    else:
        auto.register(ours.M33DConfig, *classes.values(), exist_ok=True)


# auto module, our module, Auto class; done entries leave the list.
_PENDING: list[tuple[str, str, str]] = [
    *((module, _ours(name), name) for module, names in _AUTO_MODULES.items() for name in names),
    ("transformers.pipelines", f"{_OURS}.rgbd_pipelines_m33d", "PIPELINE_REGISTRY"),
]
_WATCHED = {name for auto, ours, _ in _PENDING for name in (auto, ours)} | set(_BASES)


def _importing(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _ready(auto: str, ours: str, finished: str | None) -> bool:
    if auto not in sys.modules or (_importing(auto) and auto != finished):
        return False
    blockers = {name for name in sys.modules if name.startswith(f"{_OURS}.")}
    if ours != _CONFIGURATION:
        blockers |= set(_BASES)
    return not any(_importing(name) and name != finished for name in blockers)


def register_auto_classes(finished: str | None = None) -> None:
    """Register with every auto module that is imported; called by itself, harmless to call again.

    Args:
        finished: a module whose body has run although Python still marks it as being imported.
    """
    for entry in list(_PENDING):
        auto, ours, name = entry
        if entry in _PENDING and _ready(auto, ours, finished):
            _PENDING.remove(entry)  # first: importing ours calls this function again
            _register(name, sys.modules[auto], importlib.import_module(ours))


class _NotifyingLoader:
    """Runs the real loader, then registers what has become possible. (importlib.abc would cost 30 ms.)"""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the real loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then register."""
        self._loader.exec_module(module)
        register_auto_classes(finished=module.__name__)

    def __getattr__(self, name: str) -> Any:  # get_source and friends
        return getattr(self._loader, name)


class _Finder:
    """Wraps the loaders of the watched modules; every other import passes by untouched."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the ordinary spec with a notifying loader, None for modules that are not watched."""
        if fullname not in _WATCHED:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _NotifyingLoader(spec.loader)  # type: ignore[assignment]
        return spec


def install() -> None:
    """Start watching imports (once per process) and serve what is imported already."""
    if not any(type(finder) is _Finder for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
    register_auto_classes()
