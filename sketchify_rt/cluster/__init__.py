"""Conversion on many machines, with Ray (extra `ray`, https://docs.ray.io).

`SketchActor` is a class for pipelines of Ray Data. `convert_dataset` converts a folder of a cloud
into another one: its workers also read and write. `ActorPool` is for the runner of
`sketchify_rt.batch`: reading, writing and the journal stay on the machine of the runner.
"""

from sketchify_rt.cluster.actor import SketchActor
from sketchify_rt.cluster.dataset import convert_dataset
from sketchify_rt.cluster.pool import ActorPool

__all__ = ["ActorPool", "SketchActor", "convert_dataset"]
