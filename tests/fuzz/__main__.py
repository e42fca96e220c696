"""Run a target under atheris for a while. Exit code 0: nothing was found."""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from types import FunctionType

import atheris

CODEC = [
    "boxes",
    "cpu",
    "exif",
    "formats",
    "gif",
    "header",
    "jpeg",
    "jxl",
    "png_chunks",
    "pnm",
    "psd",
    "tiff",
]

with atheris.instrument_imports(include=["PIL"]):
    modules = [import_module(f"sketchify_rt.codec.{name}") for name in CODEC]
    from sketchify_rt.kernels import native
    from tests.fuzz.targets import CORPUS, TARGETS

# One by one, since imports of an editable install go past the hook of atheris.
for module in (*modules, native):
    for function in vars(module).values():
        if isinstance(function, FunctionType) and function.__module__ == module.__name__:
            atheris.instrument_func(function)

HERE = Path(__file__).parent

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--found", type=Path, default=Path("build/fuzz"), help="where it goes")
    parser.add_argument("--seed", type=int, default=0, help="0 takes another each time")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow has many about damage
    arguments.found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as grown:  # what this run adds to the corpus
        options = [
            f"-max_total_time={arguments.seconds}",
            f"-seed={arguments.seed}",
            f"-artifact_prefix={arguments.found}/",
            "-timeout=60",  # seconds a case, of a machine that may be busy
            "-rss_limit_mb=2048",
            "-max_len=4096",
            "-print_final_stats=1",
            grown,
            str(HERE / "corpus" / CORPUS[arguments.target]),
        ]
        atheris.Setup([sys.argv[0], *options], TARGETS[arguments.target])
        atheris.Fuzz()
