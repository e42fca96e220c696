"""Connects to Ray, and tells how many actors fit into a cluster."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from typing import Any

from sketchify_rt.errors import BackendUnavailable, OptionsError
from sketchify_rt.options import Options

_TIMEOUT = 5.0  # seconds in which the machine of an address must answer


def import_ray() -> Any:
    """Imports Ray.

    Returns:
        The module.

    Raises:
        BackendUnavailable: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # sends nothing unless the user asks
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable(
            f"Ray is not installed ({error}). To fix: pip install 'sketchify-rt[ray]'"
        ) from error
    return ray


def connect(ray: Any, address: str | None, processors: int) -> bool:
    """Connects to a cluster, or starts one on this machine.

    Args:
        ray: The module.
        address: "auto", "ray://HOST:PORT" or "HOST:PORT"; None for RAY_ADDRESS, or else for a
            cluster on this machine.
        processors: Number of processors of a cluster that is started; 0 for all of this machine.

    Returns:
        Whether a cluster was started.

    Raises:
        BackendUnavailable: The cluster cannot be reached.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    local = address == "local"
    size = {"num_cpus": processors or Options().thread_count, "include_dashboard": False}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        # Without this check Ray tries for minutes, and then ends the process.
        host, colon, port = address.rpartition("://")[2].partition(":")
        if colon:
            socket.create_connection((host, int(port)), _TIMEOUT).close()
        ray.init(address=address, **quiet, **(size if local else {}))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailable(
            f"no Ray cluster at {address}: {reason}. Start one with `ray start --head`, or leave "
            "the address out to use this machine"
        ) from error
    return local


def share(available: dict[str, float], options: Options) -> tuple[Options, dict[str, float], int]:
    """Divides the resources of a cluster among actors.

    Args:
        available: Resources of the cluster by Ray's names: "CPU", "GPU".
        options: Options of the user.

    Returns:
        Options of an actor, resources of an actor as Ray's options of an actor, and the number of
        actors that fit into the cluster.

    Raises:
        OptionsError: The option `device` names one GPU.
        BackendUnavailable: The cluster has no room for an actor with these options.
    """
    processors, gpus = int(available.get("CPU", 0)), int(available.get("GPU", 0))
    if options.device.startswith("cuda:"):
        raise OptionsError(
            f'device must be "auto", "cpu" or "cuda" on Ray, which gives each actor its own GPU: '
            f"got {options.device}"
        )
    if gpus and options.device != "cpu":
        threads = options.threads or max(1, processors // gpus)
        return dataclasses.replace(options, threads=threads), {"num_gpus": 1}, gpus
    if options.of_gpu or options.device == "cuda":
        raise BackendUnavailable(
            "the Ray cluster has no GPU. Add a machine with a GPU, or use --device cpu without "
            "--runtime"
        )
    threads = options.threads or 1
    if processors < threads:
        raise BackendUnavailable(
            f"the Ray cluster has too few processors: got {processors}, an actor needs {threads}. "
            "Use fewer --threads"
        )
    options = dataclasses.replace(options, device="cpu", threads=threads)
    return options, {"num_cpus": threads}, processors // threads
