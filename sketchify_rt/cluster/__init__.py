"""Many machines: the way of an image, from decoding to encoding, in actors of Ray (`ray` extra).

`SketchActor` is for pipelines of Ray Data, `RayEngine` for the runner: reading, writing and the
journal stay where it runs. `convert_dataset` takes a folder of a cloud to another one; there the
workers read and write as well. https://docs.ray.io
"""

from sketchify_rt.cluster.actor import SketchActor
from sketchify_rt.cluster.dataset import convert_dataset
from sketchify_rt.cluster.engine import RayEngine

__all__ = ["RayEngine", "SketchActor", "convert_dataset"]
