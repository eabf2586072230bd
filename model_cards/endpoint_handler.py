"""Handler for Inference Endpoints (https://huggingface.co/docs/inference-endpoints): one request, one picture or clip.

A request is {"inputs": ..., "parameters": {...}}; inputs are the bytes of a file, its base64 text, an address, or a
PIL image. Bytes and text are files that Pillow (pictures) or PyAV (clips) can open.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from transformers import AutoConfig, AutoModel, pipeline
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

_PIPELINES = {
    "ForDepthEstimation": "depth-estimation",
    "ForSemanticSegmentation": "image-segmentation",
    "ForVideoClassification": "video-classification",
    "ForPreTraining": "image-feature-extraction",
}
_MOST_BYTES = 64 * 2**20


class EndpointHandler:
    """Loads the model once and answers requests.

    Args:
        path: folder of the repository.
    """

    def __init__(self, path: str = "") -> None:
        # The endpoint runs the code of the repository that it was made for, and no other.
        config = AutoConfig.from_pretrained(path, trust_remote_code=True)
        name = (config.architectures or [""])[0]
        task = next((task for ending, task in _PIPELINES.items() if name.endswith(ending)), None)
        if task is None:
            raise ValueError(f"{name or 'a model without architecture'} has no pipeline that an endpoint could run")
        self.task: str = task
        self.pipeline: Any = None
        if task == "image-feature-extraction" and int(getattr(config, "num_frames", 1)) > 1:
            self._load_clip_encoder(path)  # transformers has no pipeline for features of clips
            return
        device = 0 if torch.cuda.is_available() else -1
        self.pipeline = pipeline(task, model=path, device=device, trust_remote_code=True)  # type: ignore[call-overload]

    def _load_clip_encoder(self, path: str) -> None:
        self.task = "clip features"
        self.model: Any = AutoModel.from_pretrained(path, trust_remote_code=True).eval()
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.processor: Any = AutoVideoProcessor.from_pretrained(path, trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> Any:
        """Answer one request.

        Returns:
            depth: {"predicted_depth": rows of metres, "depth": PNG as base64}; segmentation: [{"label", "mask": PNG as
            base64}]; clips: [{"label", "score"}]; features: [tokens][channels].

        Raises:
            ValueError: inputs that are missing, too large, or no picture or clip.
        """
        if not isinstance(data, dict) or data.get("inputs") is None:
            raise ValueError('a request needs "inputs": bytes, base64 text, an address, or a picture')
        parameters = data.get("parameters") or {}
        if self.task == "video-classification":
            return _with_file(data["inputs"], lambda path: self.pipeline(path, **parameters))
        if self.task == "clip features":
            return _with_file(data["inputs"], lambda path: self._clip_features(path, **parameters))
        found = self.pipeline(_picture(data["inputs"]), **parameters)
        if self.task == "depth-estimation":
            return {"predicted_depth": found["predicted_depth"].tolist(), "depth": _png(found["depth"])}
        if self.task == "image-segmentation":
            return [{"label": part["label"], "mask": _png(part["mask"])} for part in found]
        return found[0]

    def _clip_features(self, path: str, **parameters: Any) -> Any:
        inputs = self.processor(path, do_sample_frames=True, return_tensors="pt", **parameters)
        with torch.no_grad():
            return self.model(**inputs.to(self.model.device)).last_hidden_state[0].float().tolist()


def _with_file(inputs: Any, run: Callable[[str], Any]) -> Any:
    """What `run` gives for a video: by its address, or for a file of the bytes that were sent."""
    if isinstance(inputs, str) and inputs.startswith(("http://", "https://")):
        return run(inputs)
    content = _bytes(inputs)
    _check_clip(content)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(content)
        return run(os.fspath(path))


def _bytes(inputs: Any) -> bytes:
    if isinstance(inputs, str):
        try:
            inputs = base64.b64decode(inputs.partition(",")[2] or inputs, validate=True)
        except binascii.Error as error:
            raise ValueError("the text in inputs is neither an address nor base64") from error
    if not isinstance(inputs, bytes | bytearray):
        raise ValueError(f"inputs are {type(inputs).__name__}; send bytes, base64 text, or an address")
    if len(inputs) > _MOST_BYTES:
        raise ValueError(f"inputs have {len(inputs)} bytes; at most {_MOST_BYTES} are taken")
    return bytes(inputs)


def _check_clip(content: bytes) -> None:
    """Errors about the file that the bytes become would name a folder of this machine."""
    import av  # for models of clips alone; requirements.txt has it then

    try:
        with av.open(io.BytesIO(content)) as opened:
            next(opened.decode(video=0))
    except (OSError, ValueError, IndexError, StopIteration) as error:
        why = getattr(error, "strerror", None) or "it holds no frames"
        raise ValueError(f"inputs are no clip that can be read ({why})") from error


def _picture(inputs: Any) -> Any:
    if isinstance(inputs, Image.Image):
        return inputs
    if isinstance(inputs, str) and inputs.startswith(("http://", "https://")):
        return inputs  # the pipeline fetches it
    try:
        picture = Image.open(io.BytesIO(_bytes(inputs)))
        return picture.convert("RGB")
    except UnidentifiedImageError as error:  # its text names an address in memory
        raise ValueError("inputs are no picture that can be read (no format that Pillow knows)") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"inputs are no picture that can be read ({error})") from error


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
