"""The rules of the house: who may import whom, what modeling/ may contain, how long things may get."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A room may import rooms of a lower rank and itself.
RANKS = {
    "modeling": 0, "acceleration": 1, "errors": 1, "registration": 1, "data": 2, "weights": 3, "evaluation": 3,
    "visualization": 3, "recipes": 3, "training": 4, "inference": 5, "inspection": 5, "experiments": 6, "demo": 6,
    "hub": 6, "scripts": 7,
}  # fmt: skip
# The wings of a large room, likewise; the modules that lie in the room itself are a wing of that name.
WINGS = {
    "data": {
        "data": 0, "files": 1, "sources.phases.formats": 1, "packed_formats": 2, "depth": 2, "labels": 2,
        "augmentation": 2, "loader": 3, "prepared": 3,
        "sources.videos": 3, "sources.frames": 4, "sources.actions": 5, "sources.phases": 5, "sources.hub": 5,
        "sources.nyuv2": 5, "sources.scannet": 5, "sources.sunrgbd": 5, "sources.scenes": 5, "recordings": 5,
        "sources.shards": 6, "sources.rooms": 6, "sources": 7, "measuring": 8,
    },
    "training": {
        "recipe": 0, "costs": 0, "processes": 1, "tasks": 2, "tasks.detection": 3, "settling": 4, "showing": 4,
        "run": 5, "probes": 6, "prior": 6,
    },
    "weights": {"known": 0, "formats": 1, "weights": 2, "export": 3},
    "experiments": {"report": 0, "report.demos": 1, "experiments": 2, "few_labels": 3},
}  # fmt: skip
OPTIONAL = (
    "datasets", "evaluate", "decord", "av", "gradio", "onnx", "onnxruntime", "timm", "matplotlib", "tensorboard",
    "h5py", "OpenEXR", "rosbags", "liblzfse", "pyrealsense2", "libusb_package", "scenezoo",
)  # fmt: skip
# huggingface_hub comes with transformers, which builds its configuration classes on it.
MODELING_PACKAGES = {"torch", "transformers", "numpy", "PIL", "huggingface_hub"}
TEXT = {".py", ".md", ".yaml", ".cfg", ".toml", ".json", ".cff", ""}
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_FOLDER_FILES = 16


def _files() -> list[Path]:
    package = [p for p in (ROOT / "m33d_hf").rglob("*.py") if not _through_link(p)]
    return sorted([*package, *(ROOT / "modeling").glob("*.py"), *(ROOT / "scripts").glob("*.py")])


def _through_link(path: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(ROOT))


def _room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    if parts[0] == "m33d_hf":
        return "" if len(parts) == 2 and parts[1] == "__init__.py" else parts[1].removesuffix(".py")
    return parts[0]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _imported_names(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute dotted names of every import; relative ones are resolved against the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = parts if parts[0] == "m33d_hf" else ("m33d_hf", *parts)
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(module[: len(module) - node.level]) if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{prefix}.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_import_arrows_point_down(path: Path) -> None:
    room = _room(path)
    if not room:
        return  # the package's own __init__ re-exports lazily
    assert room in RANKS, f"{path}: a room this test does not know; add it to RANKS"
    for name, line in _imported_names(path):
        parts = name.split(".")
        assert parts[0] not in {"modeling", "scripts"}, f"{path}:{line}: import it as m33d_hf.{name}"
        if parts[0] != "m33d_hf" or len(parts) < 2 or parts[1] not in RANKS:
            continue
        target = parts[1]
        assert target == room or RANKS[target] < RANKS[room], f"{path}:{line}: {room} may not import {target}"


def _modules() -> dict[str, Path]:
    """Dotted name below m33d_hf -> file, of every module of the package itself."""
    names = {}
    for path in _files():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "m33d_hf":
            names[".".join(parts[1:]).removesuffix(".__init__") or "__init__"] = path
    return names


def _folder(name: str, modules: dict[str, Path]) -> str:
    """The folder in which a module lies, dotted."""
    return name if modules[name].name == "__init__.py" else name.rpartition(".")[0]


def _folder_arrows() -> dict[tuple[str, str], str]:
    """(folder, folder that it imports) -> an import that makes it so. A package's __init__ stands for its folder."""
    modules = _modules()
    arrows = {}
    for name, path in modules.items():
        for imported, line in _imported_names(path):
            target = imported.removeprefix("m33d_hf.")
            if not imported.startswith("m33d_hf."):
                continue
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if not target or target == "__init__":
                continue
            pair = (_folder(name, modules), _folder(target, modules))
            if pair[0] != pair[1]:
                arrows[pair] = f"{path.relative_to(ROOT)}:{line}"
    return arrows


def test_no_two_folders_import_each_other() -> None:
    arrows = _folder_arrows()
    both = {pair: place for pair, place in arrows.items() if pair[::-1] in arrows and "" not in pair}
    assert not both


@pytest.mark.parametrize("room", WINGS)
def test_arrows_between_wings_point_down(room: str) -> None:
    ranks = WINGS[room]
    inside = {pair: place for pair, place in _folder_arrows().items() if all(f.split(".")[0] == room for f in pair)}
    assert len(inside) >= len(ranks) - 2
    for pair, place in inside.items():
        one, other = (folder.removeprefix(f"{room}.") for folder in pair)
        assert {one, other} <= set(ranks), f"{place}: a wing this test does not know; add it to WINGS"
        assert ranks[other] < ranks[one], f"{place}: {one} may not import {other}"


def test_no_folder_is_overfull() -> None:
    folders = {path.parent for path in _modules().values()}
    counts = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert not {folder: count for folder, count in counts.items() if count > MAX_FOLDER_FILES}


@pytest.mark.parametrize("path", sorted((ROOT / "modeling").glob("*.py")), ids=lambda p: p.name)
def test_modeling_is_flat(path: Path) -> None:
    """What travels to the Hub is copied file by file: siblings by one dot, nothing of ours."""
    tree = _tree(path)
    guarded = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.Try) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module, f"{path}:{node.lineno}: only 'from .x_m33d import y'"
            assert node.module.endswith("_m33d"), f"{path}:{node.lineno}: siblings end in _m33d"
            continue
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        for top in (name.split(".")[0] for name in names):
            assert top != "m33d_hf", f"{path}:{node.lineno}: modeling/ does not know m33d_hf"
            allowed = top in MODELING_PACKAGES or top in sys.stdlib_module_names
            assert allowed or id(node) in guarded, f"{path}:{node.lineno}: import optional {top} in a try"


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_optional_packages_are_not_imported_at_module_level(path: Path) -> None:
    for node in _tree(path).body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in OPTIONAL, f"{path}:{node.lineno}: {name} belongs in a function"


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{path} has {lines} lines"
    for node in ast.walk(_tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            has_docstring = ast.get_docstring(node) is not None
            first = node.body[1] if has_docstring and len(node.body) > 1 else node.body[0]
            length = (node.end_lineno or node.lineno) - first.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{path}:{node.lineno}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_swallowed_or_left_undone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"):
        assert word not in text, f"{path}: contains {word}"
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}: bare except"
            only_pass = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            assert not only_pass, f"{path}:{node.lineno}: an exception disappears here"


def test_errors_are_re_exported() -> None:
    from m33d_hf import errors
    from m33d_hf.modeling import errors_m33d

    tree = ast.parse(Path(errors_m33d.__file__).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert "M33DError" in names and len(names) > 8
    for name in names:
        assert getattr(errors, name) is getattr(errors_m33d, name)
        assert issubclass(getattr(errors, name), errors.M33DError)


def test_import_is_light() -> None:
    heavy = ("torch", "transformers", *OPTIONAL)
    code = f"import sys, m33d_hf; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_imports_without_optional_packages() -> None:
    """Modeling, data and training from local files work where the optional packages are not installed."""
    modules = []
    for path in _files():
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts if parts[0] == "m33d_hf" else ("m33d_hf", *parts)
        modules.append(".".join(parts).removesuffix(".__init__"))
    blocked = ("datasets", "evaluate", "decord", "gradio", "onnx", "matplotlib", "h5py", "OpenEXR", "rosbags")
    blocked += ("liblzfse",)
    code = (
        "import importlib, sys\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_nothing_names_a_machine() -> None:
    """Committed files work anywhere: no absolute home of a developer's machine."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and path.suffix in TEXT:
            text = path.read_text(encoding="utf-8", errors="replace")
            for word in ("/wo" + "rk/", "/ro" + "ot/", ".lib" + "rary"):
                assert word not in text, f"{name} names {word}"
