"""Registers M33D with `AutoModel`, `AutoImageProcessor`, ... on `import m33d_hf`, without importing them.

transformers takes seconds to import, so `import m33d_hf` does not. Instead a finder in front of `sys.meta_path`
notices when one of transformers' auto modules has been imported and then registers our classes through its public
`register` methods. Modules that are there already are served at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

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


def _register_configuration(auto: ModuleType, configuration: ModuleType) -> None:
    auto.AutoConfig.register("m33d", configuration.M33DConfig, exist_ok=True)


def _register_models(auto: ModuleType, modeling: ModuleType) -> None:
    auto.AutoModel.register(modeling.M33DConfig, modeling.M33DModel, exist_ok=True)


def _register_pretraining(auto: ModuleType, pretraining: ModuleType) -> None:
    auto.AutoModelForPreTraining.register(pretraining.M33DConfig, pretraining.M33DForPreTraining, exist_ok=True)


def _register_tasks(auto: ModuleType, tasks: ModuleType) -> None:
    config = tasks.M33DConfig
    auto.AutoModelForSemanticSegmentation.register(config, tasks.M33DForSemanticSegmentation, exist_ok=True)
    auto.AutoModelForDepthEstimation.register(config, tasks.M33DForDepthEstimation, exist_ok=True)


def _register_image_processors(auto: ModuleType, processing: ModuleType) -> None:
    classes = {"torchvision": processing.M33DImageProcessor, "pil": processing.M33DImageProcessorPil}
    auto.AutoImageProcessor.register(processing.M33DConfig, image_processor_classes=classes, exist_ok=True)


def _register_videos(auto: ModuleType, videos: ModuleType) -> None:
    config = videos.M33DConfig
    auto.AutoModelForVideoClassification.register(config, videos.M33DForVideoClassification, exist_ok=True)


def _register_video_processor(auto: ModuleType, processing: ModuleType) -> None:
    processor = processing.M33DVideoProcessor
    auto.AutoVideoProcessor.register(processing.M33DConfig, video_processor_class=processor, exist_ok=True)


# auto module, our module, what to register; done entries leave the list.
_PENDING: list[tuple[str, str, Callable[[ModuleType, ModuleType], None]]] = [
    (f"{_AUTO}.configuration_auto", _CONFIGURATION, _register_configuration),
    (f"{_AUTO}.modeling_auto", f"{_OURS}.modeling_m33d", _register_models),
    (f"{_AUTO}.modeling_auto", f"{_OURS}.pretraining_m33d", _register_pretraining),
    (f"{_AUTO}.modeling_auto", f"{_OURS}.tasks_m33d", _register_tasks),
    (f"{_AUTO}.modeling_auto", f"{_OURS}.video_tasks_m33d", _register_videos),
    (f"{_AUTO}.video_processing_auto", f"{_OURS}.video_processing_m33d", _register_video_processor),
    (f"{_AUTO}.image_processing_auto", f"{_OURS}.image_processing_m33d", _register_image_processors),
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
        auto, ours, register = entry
        if entry in _PENDING and _ready(auto, ours, finished):
            _PENDING.remove(entry)  # first: importing ours calls this function again
            register(sys.modules[auto], importlib.import_module(ours))


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
