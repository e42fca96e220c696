"""Quotas of cgroups count as processors do."""

import os
from pathlib import Path

import pytest

from sketchify_rt import processors
from sketchify_rt.options import Options

FILES = {
    "v2": ("0::/box\n", {"box/cpu.max": "150000 100000\n"}, 2),
    "v2, above": ("0::/box/inner\n", {"box/cpu.max": "300000 100000"}, 3),
    "v2, the smallest": (
        "0::/a/b\n",
        {"a/cpu.max": "200000 100000", "a/b/cpu.max": "50000 100000"},
        1,
    ),
    "v2, a container": ("0::/../host/path\n", {"cpu.max": "400000 100000"}, 4),
    "v2, none": ("0::/box\n", {"box/cpu.max": "max 100000"}, 8),
    "v1": (
        "5:memory:/x\n4:cpu,cpuacct:/box\n",
        {"cpu,cpuacct/box/cpu.cfs_quota_us": "200000", "cpu,cpuacct/box/cpu.cfs_period_us": "1e5"},
        8,  # a period that is no whole number is no quota
    ),
    "v1, a quota": (
        "4:cpu,cpuacct:/box\n",
        {
            "cpu,cpuacct/box/cpu.cfs_quota_us": "200000\n",
            "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "v1, none": (
        "4:cpu,cpuacct:/box\n",
        {
            "cpu,cpuacct/box/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        },
        8,
    ),
    "no cgroups": ("", {}, 8),
}


@pytest.mark.parametrize("case", FILES)
def test_quota(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    groups, files, expected = FILES[case]
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert processors.count(tmp_path) == expected


def test_affinity_is_less_than_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert processors.count(tmp_path) == 1


def test_threads_are_these_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "count", lambda: 5)
    assert Options().thread_count == 5
    assert Options(threads=2).thread_count == 2
