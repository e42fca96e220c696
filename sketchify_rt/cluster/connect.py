"""Ray, a cluster of it, and what an actor has there."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from typing import Any

from sketchify_rt.errors import BackendUnavailable, OptionsError
from sketchify_rt.options import Options

_TIMEOUT = 5.0  # seconds for the machine of the address to answer


def import_ray() -> Any:
    """The module; raises BackendUnavailable where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent out unasked
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable(
            f"ray: {error}; `pip install 'sketchify-rt[ray]'` installs it"
        ) from error
    return ray


def connect(ray: Any, address: str | None, processors: int) -> bool:
    """Connect, or start a cluster here; whether it was started.

    processors: that the cluster is to have if it is started, 0 for all of this machine.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here = {"num_cpus": processors or Options().thread_count, "include_dashboard": False}
    try:
        # Ray would try for minutes, and then end the process.
        host, colon, port = address.rpartition("://")[2].partition(":")
        if colon:
            socket.create_connection((host, int(port)), _TIMEOUT).close()
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(here if address == "local" else {}),
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailable(
            f"ray: no cluster at {address} ({reason}); `ray start --head` starts one, and without "
            "an address this machine is used"
        ) from error
    return address == "local"


def share(there: dict[str, float], options: Options) -> tuple[Options, dict[str, float], int]:
    """Options and resources of one actor, and how many of them a cluster has room for.

    Raises OptionsError and BackendUnavailable where there is none for these options.
    """
    processors, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    if options.device.startswith("cuda:"):
        raise OptionsError(f"device is {options.device}; on Ray each actor has its own: give cuda")
    if gpus and options.device != "cpu":
        threads = options.threads or max(1, processors // gpus)
        return dataclasses.replace(options, threads=threads), {"num_gpus": 1}, gpus
    if options.of_gpu or options.device == "cuda":
        raise BackendUnavailable("ray: the cluster has no GPU; or use --device cpu or auto")
    threads = options.threads or 1
    if processors < threads:
        raise BackendUnavailable(
            f"ray: the cluster has {processors} processors, and an actor is to have {threads}; "
            "give fewer --threads"
        )
    options = dataclasses.replace(options, device="cpu", threads=threads)
    return options, {"num_cpus": threads}, processors // threads
