"""Limits of control groups, as files of several container systems tell them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from sketchify_rt import cgroups, processors
from sketchify_rt.batch import budget
from sketchify_rt.options import Options

MACHINE = (8, 16 << 30)  # processors and bytes of memory
GIB = 1 << 30


class Case(NamedTuple):
    """`cgroup` and `mounts` are files of /proc/self; `files` are below /sys/fs/cgroup."""

    cgroup: str
    mounts: str
    files: dict[str, str]
    processors: int
    memory: int


def v1(controllers: str, group: str = "/", point: str = "") -> str:
    where = f"/sys/fs/cgroup/{point or controllers}"
    return f"35 31 0:32 {group} {where} rw,nosuid shared:9 - cgroup cgroup rw,{controllers}\n"


def v2(group: str = "/", point: str = "/sys/fs/cgroup") -> str:
    return f"41 31 0:38 {group} {point} rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"


def cpus_v1(folder: str, quota: int) -> dict[str, str]:
    period = "100000\n"
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": period}


NO_MEMORY_LIMIT = "9223372036854771712\n"  # of version 1
OTHERS = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:5 / /proc rw - proc proc rw\n"
POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab\\x2dcd.slice"
SLURM = "/slurm/uid_1000/job_77"

CASES = {
    "Docker, version 1": Case(
        "12:cpu,cpuacct:/docker/ab12\n11:memory:/docker/ab12\n1:name=systemd:/docker/ab12\n",
        v1("cpu,cpuacct", "/docker/ab12") + v1("memory", "/docker/ab12"),
        {**cpus_v1("cpu,cpuacct", 150000), "memory/memory.limit_in_bytes": f"{2 * GIB}\n"},
        2,
        2 * GIB,
    ),
    "Docker, version 1, the folder of the host": Case(
        "12:cpu,cpuacct:/docker/ab12\n11:memory:/docker/ab12\n",
        v1("cpu,cpuacct") + v1("memory"),
        {
            **cpus_v1("cpu,cpuacct/docker/ab12", 300000),
            "memory/docker/ab12/memory.limit_in_bytes": f"{2 * GIB}\n",
            "memory/memory.limit_in_bytes": NO_MEMORY_LIMIT,
        },
        3,
        2 * GIB,
    ),
    "Docker, version 2 with a namespace": Case(
        "0::/\n",
        v2(),
        {"cpu.max": "400000 100000\n", "memory.max": f"{3 * GIB}\n", "memory.high": "max\n"},
        4,
        3 * GIB,
    ),
    "version 2, a group outside of the namespace": Case(
        "0::/../other/ab12\n", v2(), {"cpu.max": "400000 100000", "memory.max": f"{GIB}"}, 4, GIB
    ),
    "systemd, the limit at a slice": Case(
        "0::/user.slice/user-1000.slice/session-2.scope\n",
        v2(),
        {
            "user.slice/user-1000.slice/session-2.scope/memory.max": "max\n",
            "user.slice/user-1000.slice/session-2.scope/cpu.max": "max 100000\n",
            "user.slice/user-1000.slice/memory.max": f"{4 * GIB}\n",
            "user.slice/user-1000.slice/cpu.max": "50000 100000\n",
            "user.slice/memory.max": f"{9 * GIB}\n",
        },
        1,
        4 * GIB,
    ),
    "systemd, MemoryHigh": Case(
        "0::/system.slice/sketch.service\n",
        v2(),
        {
            "system.slice/sketch.service/memory.high": f"{GIB}\n",
            "system.slice/sketch.service/memory.max": f"{2 * GIB}\n",
        },
        8,
        GIB,
    ),
    "Slurm, version 1": Case(
        f"4:memory:{SLURM}/step_0/task_0\n3:cpu,cpuacct:{SLURM}/step_0/task_0\n",
        v1("memory") + v1("cpu,cpuacct"),
        {
            f"memory{SLURM}/step_0/task_0/memory.limit_in_bytes": NO_MEMORY_LIMIT,
            f"memory{SLURM}/step_0/memory.limit_in_bytes": NO_MEMORY_LIMIT,
            f"memory{SLURM}/memory.limit_in_bytes": f"{5 * GIB}\n",
            **cpus_v1(f"cpu,cpuacct{SLURM}/step_0/task_0", -1),
            **cpus_v1(f"cpu,cpuacct{SLURM}", 600000),
        },
        6,
        5 * GIB,
    ),
    "Kubernetes, the limit at the pod": Case(
        f"0::{POD}/cri-containerd-12.scope\n",
        v2(),
        {
            f"{POD[1:]}/cri-containerd-12.scope/memory.max": "max\n",
            f"{POD[1:]}/cri-containerd-12.scope/cpu.max": "max 100000\n",
            f"{POD[1:]}/memory.max": f"{GIB // 2}\n",
            f"{POD[1:]}/cpu.max": "250000 100000\n",
        },
        3,
        GIB // 2,
    ),
    "Kubernetes, the pod is mounted": Case(  # a backslash is written as \134 in mountinfo
        f"0::{POD}/cri-containerd-12.scope\n",
        v2(POD.replace("\\", "\\134")),
        {"cri-containerd-12.scope/memory.max": f"{2 * GIB}", "memory.max": f"{GIB}"},
        8,
        GIB,
    ),
    "both versions, and a group of another container": Case(
        "3:memory:/a\n2:cpu:/a\n0::/a\n",
        v1("memory", "/b", "other") + v1("memory") + v1("cpu") + v2(point="/sys/fs/cgroup/unified"),
        {
            "memory/a/memory.limit_in_bytes": f"{7 * GIB}",
            "other/memory.limit_in_bytes": f"{GIB}",
            **cpus_v1("cpu/a", 700000),
        },
        7,
        7 * GIB,
    ),
    "no limit": Case(
        "0::/box\n", v2(), {"box/cpu.max": "max 100000\n", "box/memory.max": "max\n"}, *MACHINE
    ),
    "more than the machine has": Case(
        "0::/\n", v2(), {"cpu.max": "6400000 100000", "memory.max": f"{64 * GIB}"}, *MACHINE
    ),
    "wrong numbers": Case(
        "0::/\n", v2(), {"cpu.max": "200000 0", "memory.max": "lots\n"}, *MACHINE
    ),
    "lines of another form": Case(
        "\n0:\nnothing\n0::/\n", "1 2\n" + v2(), {"memory.max": f"{GIB}"}, 8, GIB
    ),
    "no files": Case("0::/box\n", v2(), {}, *MACHINE),
    "no mount": Case("0::/box\n", "", {"box/cpu.max": "100000 100000"}, *MACHINE),
    "no groups": Case("", v2(), {"cpu.max": "100000 100000"}, *MACHINE),
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"SC_PHYS_PAGES": MACHINE[1] // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MACHINE[0])), raising=False)
    monkeypatch.setattr(os, "sysconf", values.__getitem__)


def build(root: Path, case: Case) -> None:
    files = {f"sys/fs/cgroup/{name}": text for name, text in case.files.items()}
    files |= {"proc/self/cgroup": case.cgroup, "proc/self/mountinfo": OTHERS + case.mounts}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", CASES)
def test_the_least_limit_of_all_groups_holds(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    build(tmp_path, case)
    assert processors.count(tmp_path) == case.processors
    assert budget.total_memory(tmp_path) == case.memory


@pytest.mark.usefixtures("machine")
def test_a_machine_without_these_files(tmp_path: Path) -> None:
    assert processors.count(tmp_path) == MACHINE[0]
    assert budget.total_memory(tmp_path) == MACHINE[1]


@pytest.mark.usefixtures("machine")
def test_a_limit_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    build(tmp_path, CASES["systemd, the limit at a slice"])
    limit = tmp_path / "sys/fs/cgroup/user.slice/user-1000.slice/memory.max"
    limit.unlink()
    limit.mkdir()  # reading fails, also for root
    assert budget.total_memory(tmp_path) == 9 * GIB


def test_the_groups_of_this_process_are_there() -> None:
    if not cgroups.text(Path("/proc/self/cgroup")):
        pytest.skip("no control groups")
    for controller in "cpu", "memory":
        assert all(folder.is_dir() for folder in cgroups.folders(controller))


def test_affinity_is_less_than_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert processors.count(tmp_path) == 1


def test_threads_are_these_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "count", lambda: 5)
    assert Options().thread_count == 5
    assert Options(threads=2).thread_count == 2
