"""Models and their processors from folders and the Hub, for applying them: complete, or refused with the reason."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from m33d_hf.errors import CheckpointError, ConfigError, first_line
from m33d_hf.weights.files import whole_weights
from m33d_hf.weights.known.local_names import refuse_missing_folder
from m33d_hf.weights.own import architectures

# Task of `predict` -> (endings of the architectures in a model's configuration, Auto class; `_class` loads it).
AUTO_CLASSES = {
    "depth": ("ForDepthEstimation", "AutoModelForDepthEstimation"),
    "segmentation": ("ForSemanticSegmentation", "AutoModelForSemanticSegmentation"),
    "clips": ("ForVideoClassification", "AutoModelForVideoClassification"),
    "phases": ("ForVideoActionDetection", "AutoModel"),
    "reconstruction": ("M33DForPreTraining", "AutoModelForPreTraining"),
}
_WORDS = {
    "depth": "depth estimation",
    "segmentation": "semantic segmentation",
    "clips": "video classification",
    "phases": "action detection",
    "reconstruction": "pre-training",
}
_CHECKPOINTS = "checkpoints"
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def task_of_model(name: str, trust_remote_code: bool = False) -> str:
    """What a model was trained for, by the architecture that its configuration names: a key of `AUTO_CLASSES`.

    Raises:
        CheckpointError: no such folder, no readable configuration, or one of another task.
    """
    from transformers import AutoConfig

    refuse_missing_folder(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        _refuse_foreign_code(name, error)
        _refuse_unwritable_cache(name, error)
        unfinished = Path(name, _CHECKPOINTS).is_dir()
        hint = " The run has not finished; give one of the folders in its checkpoints/." if unfinished else ""
        raise CheckpointError(
            f"--model {name!r} has no readable config.json ({first_line(error)}) Pass the output folder of a "
            f"run, a checkpoint folder of one, or a Hub id.{hint}"
        ) from error
    stated = architectures(Path(name), {"architectures": getattr(config, "architectures", None)})
    for architecture in stated:
        for task, (ending, _) in AUTO_CLASSES.items():
            if architecture.endswith(ending):
                return task
    known = ", ".join(_WORDS.values())
    raise CheckpointError(
        f"--model {name!r} is {' and '.join(stated) or 'of an architecture that its config.json does not name'}; "
        f"predictions are made by models for {known}. Fine-tune it with one of the run_* scripts first."
    )


def load_model(name: str, task: str, trust_remote_code: bool = False) -> Any:
    """A model with all of its weights, in float32.

    Raises:
        CheckpointError: nothing to load, another task, weights that lack a part of it, or code that may not be run.
    """
    try:
        # Weights saved in half precision come back as float32: the processors' pictures are that.
        with whole_weights(name):
            model, report = _class(task).from_pretrained(
                name, output_loading_info=True, dtype=torch.float32, trust_remote_code=trust_remote_code
            )
    except CheckpointError:  # a RuntimeError, too
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        _refuse_foreign_code(name, error)
        _refuse_unwritable_cache(name, error)
        what = _WORDS[task]
        raise CheckpointError(
            f"--model {name!r} cannot be loaded as {'an' if what[0] in 'aeiou' else 'a'} {what} model: "
            f"{first_line(error)} Pass a folder or Hub id of such a model with config.json and weights."
        ) from error
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        listed = ", ".join(missing[:3])
        raise CheckpointError(
            f"--model {name!r} has no weights for {len(missing)} parameters of {type(model).__name__} ({listed}, ..), "
            f"so its predictions would be noise. Use a checkpoint that was trained for {_WORDS[task]}."
        )
    return model


def ready(model: Any, device: torch.device) -> Any:
    """A model on its device, in eval mode; ours with the kernels of this package's runs, any other as it came.

    Only for computing: whoever saves or exports a model needs its plain layers, as `load_model` returns them.
    """
    from m33d_hf.acceleration import place  # with all models, which to look at a configuration needs none of
    from m33d_hf.modeling.modeling_m33d import M33DPreTrainedModel

    return (place(model, device) if isinstance(model, M33DPreTrainedModel) else model.to(device)).eval()


def _class(task: str) -> Any:
    """What loads the models of a task. transformers has no Auto class for phases: AutoModel would load the encoder
    alone, and leave out the head without an error."""
    import transformers

    if task == "phases":
        from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection

        return M33DForVideoActionDetection
    return getattr(transformers, AUTO_CLASSES[task][1])


def load_image_processor(name: str, trust_remote_code: bool = False) -> Any:
    """The image processor beside a model; of a checkpoint of a run, that of the run where it has none itself.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    from transformers import AutoImageProcessor

    return _processor(AutoImageProcessor, name, trust_remote_code, "image processor", "preprocessor_config.json")


def load_video_processor(name: str, trust_remote_code: bool = False) -> Any:
    """As `load_image_processor`, for models of clips."""
    from transformers import AutoVideoProcessor

    return _processor(AutoVideoProcessor, name, trust_remote_code, "video processor", "video_preprocessor_config.json")


def _processor(auto: Any, name: str, trusted: bool, word: str, file: str) -> Any:
    folder = Path(name)
    run = folder.resolve().parent.parent
    # A checkpoint lies in OUTPUT/checkpoints/NAME.
    inherits = folder.is_dir() and not (folder / file).is_file() and folder.resolve().parent.name == _CHECKPOINTS
    try:
        return auto.from_pretrained(run if inherits and (run / file).is_file() else name, trust_remote_code=trusted)
    except (OSError, ValueError, KeyError, ImportError) as error:
        _refuse_foreign_code(name, error)
        raise CheckpointError(
            f"--model {name!r}: its {word} cannot be loaded ({first_line(error)}). Add the model's "
            f"{file}, which defines how pictures are resized and normalised, to the folder."
        ) from error


def _refuse_foreign_code(name: str, error: Exception) -> None:
    """Say it in our words where transformers refuses to run the code of a repository."""
    if "trust_remote_code" in str(error):
        raise CheckpointError(
            f"--model {name!r} requires Python code from its repository, which runs with your permissions. Read the "
            "code, then pass --trust_remote_code."
        ) from error


def _refuse_unwritable_cache(name: str, error: Exception) -> None:
    """Say what to do where a model was found on the Hub, and its files could not be kept."""
    cause: BaseException | None = error
    while cause is not None and not Path(name).exists():
        if isinstance(cause, OSError) and cause.errno in _UNWRITABLE:
            raise CheckpointError(
                f"--model {name!r} cannot be fetched: its files cannot be kept here ({first_line(cause)}). "
                "Set HF_HOME to a folder on this machine that can be written and has room."
            ) from error
        cause = cause.__cause__ or cause.__context__


def model_digest(model: nn.Module, processor: Any = None) -> str:
    """SHA-256 of weights and processor; two copies of a model have the same."""
    state = hashlib.sha256(b"" if processor is None else processor.to_json_string().encode())
    for name, tensor in sorted(model.state_dict().items()):
        state.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def usable_device(word: str, local_rank: int = 0) -> torch.device:
    """The device called `word`; "auto" takes this process's CUDA device, another accelerator, or the CPU.

    Raises:
        ConfigError: it is not there.
    """
    if word == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank % torch.cuda.device_count())
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(word)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(f"--device {word!r} cannot be used ({first_line(error)}).") from error
    return device
