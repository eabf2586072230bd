"""The names of the tasks and where their classes are; each name is defined only here.

Classes are imported only when needed: `--help` lists the names, and models take seconds to import.
"""

from __future__ import annotations

from m33d_hf.errors import ConfigError

# name in recipes and on the command line -> "module:class", a subclass of m33d_hf.training.tasks.base.Task
TASKS = {
    "pretraining": "m33d_hf.training.tasks.pretraining:PretrainingTask",
    "video_classification": "m33d_hf.training.tasks.video_classification:VideoClassificationTask",
    "action_detection": "m33d_hf.training.tasks.detection.task:ActionDetectionTask",
    "semantic_segmentation": "m33d_hf.training.tasks.semantic_segmentation:SemanticSegmentationTask",
    "depth_estimation": "m33d_hf.training.tasks.depth_estimation:DepthEstimationTask",
}
PRETRAINING = next(iter(TASKS))  # methods describe it alone


def register_task(name: str, place: str) -> None:
    """Add a task from outside the package, before arguments are parsed.

    Args:
        name: used as `task` in recipes and as `main(name)` in the task's script.
        place: "module:class".

    Raises:
        ConfigError: another class has this name, or `place` has another form.
    """
    if place.count(":") != 1:
        raise ConfigError(f"task {name!r}: {place!r} does not name a class; write package.module:Class.")
    if TASKS.setdefault(name, place) != place:
        raise ConfigError(f"the task {name!r} already exists ({TASKS[name]}); choose another name.")


def name_of(task: type) -> str:
    """The name under which a class or one of its bases is registered, otherwise the name of the class."""
    names = {place: name for name, place in TASKS.items()}
    places = (f"{cls.__module__}:{cls.__qualname__}" for cls in task.__mro__)
    return next((names[place] for place in places if place in names), task.__name__)
