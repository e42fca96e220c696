"""The structure of the package: imports run down only, and heavy ones stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sketchify_rt"

# A module may import from lower floors, and from its own package.
FLOORS = [
    {"cgroups", "errors", "forks"},
    {"files", "packages", "processors"},
    {"image", "options", "models", "stream"},
    {"bilevel", "colour", "looks"},
    {"hints", "metrics", "tensors", "tiling"},
    {"codec", "kernels"},
    {"runtime"},
    {"tensorrt"},
    {"painter"},
    {"backend", "calls", "inputs", "limits"},
    {"strokes"},
    {"pipeline"},
    {"sketchifier"},
    {"batch", "compare"},
    {"cluster", "integrations"},
    {"cli"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}

# Where each heavy dependency may be imported: files, or whole folders.
HEAVY = {
    # The last two to bound its threads.
    "cv2": {
        "bilevel.py",
        "codec",
        "colour.py",
        "compare/figure.py",
        "compare/html.py",
        "image.py",
        "looks.py",
        "metrics.py",
        "batch/api.py",
        "cluster/actor.py",
    },
    # options.py and sketchifier.py for types alone.
    "PIL": {"codec", "compare/png.py", "image.py", "inputs.py", "options.py", "sketchifier.py"},
    "isal": {
        "codec/png_chunks.py",
        "batch/archives/reader.py",
        "batch/archives/writer.py",
        "batch/item.py",
    },
    "openvino": {"runtime/openvino.py"},
    "torch": {
        "backend/cuda.py",
        "codec/cuda.py",
        "codec/dali.py",
        "codec/nvimagecodec.py",
        "integrations/transform.py",
        "kernels/numba_cuda.py",
        "kernels/ragged.py",
        "kernels/triton.py",
        "runtime/cuda_graphs.py",
        "runtime/epilogue.py",
        "runtime/hints.py",
        "runtime/torch.py",
        "runtime/unet.py",
        "tensorrt/engines.py",
        "tensorrt/session.py",
        "tensorrt/verify.py",
        "tensors.py",
    },
    "onnx": {"runtime/unet.py", "tensorrt/typed_onnx.py"},
    "triton": {"kernels/triton.py", "kernels/triton_jit.py", "runtime/epilogue.py"},
    "numba": {"kernels/numba_cuda.py"},
    "nvidia": {"codec/dali.py", "codec/nvimagecodec.py"},
    "tensorrt": {"tensorrt/library.py"},
    "av": {f"batch/video/{name}.py" for name in ("__init__", "reader", "writer")},
    "pypdfium2": {"batch/pdf.py"},
    "ray": {"cluster/pool.py"},
    "pyarrow": {"cluster/dataset.py"},
    "tqdm": {"cli"},
    "click": {"cli"},
}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(path: Path) -> str:
    """The top-level module or package of sketchify_rt that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def test_every_part_has_a_floor() -> None:
    parts = {part(path) for path in SOURCES} - {"__init__", "__main__"}
    assert parts == set(FLOOR)


def test_imports_run_down() -> None:
    for path in SOURCES:
        here = part(path)
        if here in ("__init__", "__main__"):
            continue
        for name in imported(path):
            if name.startswith("sketchify_rt."):
                there = name.split(".")[1]
                if there in FLOOR and there != here:
                    assert FLOOR[there] < FLOOR[here], f"{path} imports {there}"
            assert not name.startswith(("training", "bench", "tests")), f"{path} imports {name}"


def test_only_the_kernels_and_their_backend_import_the_extension() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if "sketchify_rt._native" in imported(path)
    }
    assert users == {"backend/cpu.py", "kernels/native.py"}


def test_heavy_libraries_stay_where_they_belong() -> None:
    for path in SOURCES:
        where = path.relative_to(PACKAGE)
        for library in {name.split(".")[0] for name in imported(path)} & HEAVY.keys():
            assert {where.as_posix(), where.parts[0]} & HEAVY[library], f"{where} imports {library}"


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return result.stdout.strip()


def test_the_package_imports_nothing_heavy_and_quickly() -> None:
    code = """
import sys, time
start = time.perf_counter()
import sketchify_rt
seconds = time.perf_counter() - start
heavy = {"torch", "openvino", "cv2", "PIL", "numpy", "click", "tqdm", "ray", "pyarrow"}
print(seconds, *(heavy & set(sys.modules)))
"""
    times = []
    for _ in range(3):  # the machine may be busy: the best of three
        seconds, *heavy = run(code).split()
        assert heavy == []
        times.append(float(seconds))
    assert min(times) < 0.1


def test_the_engine_and_the_command_line_open_no_backend() -> None:
    code = """
import sys
import sketchify_rt.sketchifier, sketchify_rt.cli.verbs
print(*({"torch", "openvino", "cv2", "PIL"} & set(sys.modules)))
"""
    assert run(code) == ""


def test_help_of_all_verbs_loads_nothing_heavy() -> None:
    code = """
import sys
from sketchify_rt.cli import verbs
for verb in verbs._VERBS:
    verbs.main.get_command(None, verb)
heavy = {"torch", "openvino", "cv2", "PIL", "numpy", "onnx", "filelock", "platformdirs", "tensorrt"}
heavy |= {"ray", "pyarrow"}
print(*(heavy & set(sys.modules)))
"""
    assert run(code) == ""


def test_help_lists_all_verbs_and_loads_none() -> None:
    code = """
import sys
from sketchify_rt.cli import verbs
verbs.main(["--help"], standalone_mode=False)
print("loaded", *[name for name in sys.modules if name.startswith(("sketchify_rt.batch", "numpy"))])
print(set(verbs._VERBS) == set(verbs.main.list_commands(None)))
"""
    *shown, loaded, whole = run(code).split("\n")
    assert loaded == "loaded"
    assert whole == "True"
    from sketchify_rt.cli import verbs

    for verb, words in verbs._VERBS.items():
        assert any(line.split(maxsplit=1) == [verb, words] for line in shown if line)
        assert verbs.main.get_command(None, verb) is not None


def test_every_public_name_is_there() -> None:
    import sketchify_rt

    assert dir(sketchify_rt) == sorted(sketchify_rt.__all__)
    for name in sketchify_rt.__all__:
        assert getattr(sketchify_rt, name) is not None
    with pytest.raises(AttributeError, match="Sketchy"):
        sketchify_rt.Sketchy  # noqa: B018


@pytest.mark.slow  # with Triton and numba, as on a card
def test_gpu_tests_are_collected_without_what_a_card_does_not_need() -> None:
    code = """
import sys
import pytest
missing = {"openvino", "isal", "platformdirs", "onnxruntime", "onnxscript", "tensorboard"}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in missing | {"sketchify_rt._native"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
sys.exit(pytest.main(["-m", "gpu", "--collect-only", "-q", "-p", "no:cacheprovider"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    files = {Path(line.split("::")[0]).name for line in done.stdout.splitlines() if "::" in line}
    marked = {
        path.name
        for path in ROOT.glob("tests/test_*.py")
        if "pytest." + "mark.gpu" in path.read_text(encoding="utf-8")
    }
    assert marked <= files  # on a card also those with the fixture `device`
    assert {"test_kernels_cuda.py", "test_codec_cuda.py", "test_training_gpu.py"} <= files
