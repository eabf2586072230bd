"""The page as a Space of the Hugging Face Hub: three files around `python -m m33d_hf.demo`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.hub_upload_m33d import Destination, Sent, send_folder

SDK = "gradio"
_TESTED_GRADIO = "6.31.0"  # stated where gradio is not installed
_MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_space(
    folder: Path | str, model: str | Sequence[str], title: str | None = None, requirement: str | None = None
) -> list[Path]:
    """Write the files of a Space that serves models; returns what was written.

    Args:
        folder: is made; files of these names are replaced.
        model, title, requirement: see `space_files`.

    Raises:
        ConfigError: as `space_files`.
    """
    folder = Path(folder)
    contents = space_files(model, title, requirement)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_text_atomically(folder / name, text)
    return [folder / name for name in contents]


def publish_space(space: str, model: str, private: bool | None = None, requirement: str | None = None) -> Sent:
    """Make or renew a Space that serves a published model, in one commit.

    Args:
        space: "organisation/name"; created where it is missing.
        model: Hub id.
        private: create it as private.
        requirement: see `space_files`.

    Raises:
        HubError: the hub did not take it. ConfigError: as `space_files`.
    """
    with TemporaryDirectory(prefix="m33d-space-") as folder:
        write_space(folder, model, requirement=requirement)
        to = Destination(space, kind="space", private=private, space_sdk=SDK)
        return send_folder(Path(folder), to, f"The web page for {model}")


def space_files(model: str | Sequence[str], title: str | None = None, requirement: str | None = None) -> dict[str, str]:
    """Texts of `app.py`, `requirements.txt` and `README.md` of a Space that serves models.

    Args:
        model: Hub id(s), as "org/name".
        title: of the Space; by default the first model's name.
        requirement: how pip gets this package, a line of requirements.txt; by default its release of this version.

    Raises:
        ConfigError: no model, or one that is no Hub id.
    """
    models = [model] if isinstance(model, str) else list(model)
    if not models:
        raise ConfigError("a Space requires at least one model.")
    for name in models:
        if not _MODEL_ID.fullmatch(name):
            raise ConfigError(f"{name!r} is no Hub id (org/name): a Space loads its models from the Hub.")
    from m33d_hf import __version__

    requirement = requirement or f"m33d-hf[demo]=={__version__}"
    return {
        "app.py": _app(models),
        "requirements.txt": f"{requirement}\n",
        "README.md": _readme(models, title or f"{models[0].split('/')[1]}: what it sees", requirement),
    }


def _app(models: Sequence[str]) -> str:
    return (
        '"""The web page of m33d-hf; `python -m m33d_hf.demo` serves the same."""\n\n'
        "import sys\n\n"
        "from m33d_hf.demo.__main__ import main\n\n"
        f"MODELS = {json.dumps(list(models))}\n\n"
        'if __name__ == "__main__":\n'
        "    sys.exit(main([*MODELS, *sys.argv[1:]]))\n"
    )


def _readme(models: Sequence[str], title: str, requirement: str) -> str:
    try:
        version = metadata.version("gradio")
    except metadata.PackageNotFoundError:
        version = _TESTED_GRADIO
    front = {
        "title": title,
        "colorFrom": "blue",
        "colorTo": "green",
        "sdk": SDK,
        "sdk_version": version,
        "app_file": "app.py",
        "pinned": False,
        "license": "apache-2.0",
    }
    # JSON scalars are YAML; a title may hold a colon.
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in front.items()]
    lines += ["models:", *(f"  - {json.dumps(name)}" for name in models)]
    links = "\n".join(f"- [{name}](https://huggingface.co/{name})" for name in models)
    return (
        "---\n" + "\n".join(lines) + "\n---\n\n"
        f"# {title}\n\n"
        "Drop a picture or a video and see what these models make of it:\n\n"
        f"{links}\n\n"
        "Uploads are limited in size and deleted after half an hour. The same page runs on your own machine:\n\n"
        f"```bash\npip install '{requirement}'\npython -m m33d_hf.demo {' '.join(models)}\n```\n"
    )
