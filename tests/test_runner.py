"""Many tasks, in this process, in others, or on Ray: what happens to one is no matter to the rest."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tqdm import tqdm

from skelact import runner
from skelact.errors import SkelactError
from skelact.files import atomic_path
from skelact.pipeline import predict
from skelact.runner import Lost, available_cores, default_workers, run_tasks


def double(number: int) -> int:
    return 2 * number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        os._exit(7)
    return 2 * number


def die(number: int) -> None:
    os._exit(9)


def divide_by(number: int) -> float:
    return 1 / number


def unsendable_at_one(number: int) -> Any:
    return (lambda: number) if number == 1 else number


def die_once(marker: str) -> str:
    """Kills its process the first time, as a node that goes down would."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def slow_double(number: int) -> int:
    time.sleep(1.0)
    return 2 * number


def write_slowly(path: str) -> None:
    """The first one at once."""
    with atomic_path(path) as part:
        part.touch()
        if "0.txt" not in path:
            time.sleep(60)


def draw_bar(number: int) -> str:
    """What guards the bar that a task draws."""
    list(tqdm(range(number), disable=True))
    return type(tqdm.get_lock()).__name__


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_is_done(workers: int) -> None:
    assert sorted(run_tasks(double, range(7), workers)) == [(k, 2 * k) for k in range(7)]


@pytest.mark.parametrize(("system", "most"), [("linux", 100), ("win32", 60)])
def test_windows_waits_for_so_many_processes_only(monkeypatch: pytest.MonkeyPatch, system: str, most: int) -> None:
    asked: list[int] = []
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(runner, "_run_in_processes", lambda _, items, workers, on_gpus: asked.append(workers) or ())
    assert list(run_tasks(double, range(200), 100)) == []
    assert asked == [most]


def test_nothing_to_do() -> None:
    assert list(run_tasks(double, [], 4)) == []


def test_a_worker_that_dies_loses_its_task_only() -> None:
    results = dict(run_tasks(die_at_three, range(8), 2))
    assert set(results) == set(range(8))
    assert {k: value for k, value in results.items() if k not in (3, 5)} == {k: 2 * k for k in (0, 1, 2, 4, 6, 7)}
    assert results[3] == Lost("its worker process died of SIGKILL: out of memory?")
    assert results[5] == Lost("its worker process ended with exit code 7")


def test_workers_that_die_at_once_are_replaced_each_time() -> None:
    results = dict(run_tasks(die, range(12), 3))
    assert results == dict.fromkeys(range(12), Lost("its worker process ended with exit code 9"))


def test_an_error_in_a_task_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        list(run_tasks(divide_by, [2, 1, 0, 3], 2))


def test_results_that_can_not_be_sent_end_their_worker_only() -> None:
    results = dict(run_tasks(unsendable_at_one, range(4), 2))
    assert {k: results[k] for k in (0, 2, 3)} == {0: 0, 2: 2, 3: 3}
    assert isinstance(results[1], Lost)


def test_bars_in_workers_take_no_semaphore() -> None:
    """Python would report it as leaked, on the user's terminal, when the workers are stopped."""
    assert dict(run_tasks(draw_bar, range(3), 2)) == dict.fromkeys(range(3), "RLock")


def test_a_caller_who_stops_early_leaves_no_processes() -> None:
    tasks = run_tasks(slow_double, range(50), 2)
    next(tasks)
    start = time.monotonic()
    tasks.close()
    assert time.monotonic() - start < 20, "the other 40 tasks were not waited for"


def test_what_a_stopped_process_was_writing_is_removed(tmp_path: Path) -> None:
    tasks = run_tasks(write_slowly, [str(tmp_path / f"{k}.txt") for k in range(3)], 2)
    next(tasks)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob(".skelact-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    tasks.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.txt"]


def test_cores_are_shared_out() -> None:
    assert default_workers("cpu", 100) >= 1
    assert default_workers("cpu", 1) == 1
    assert default_workers("cuda:0", 100) >= default_workers("cpu", 100)
    assert default_workers("cuda:0", 1000, gpus=4) == min(16, available_cores())


def test_without_ray_the_error_tells_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SkelactError, match=r'pip install "skelact\[ray\]"'):
        list(run_tasks(double, range(2), engine="ray"))


@pytest.mark.parametrize(
    ("device", "gpus", "share"),
    [(None, 2.0, 0.25), ("auto", 2.0, 0.25), ("cuda", 2.0, 0.25), ("cpu", 2.0, 0), (None, 0.0, 0), ("cuda", 0.0, 0)],
)
def test_ray_gives_each_task_its_share_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str | None, gpus: float, share: float
) -> None:
    """Else Ray hides the GPUs from it, or all are on the first. The cluster is a stand-in that does tasks at once."""
    asked = {}

    def options(**wanted: Any) -> Any:
        asked.update(wanted)
        return SimpleNamespace(remote=lambda folder, task, item: task(item))

    ray = SimpleNamespace(
        is_initialized=lambda: True,
        cluster_resources=lambda: {"CPU": 4.0, **({"GPU": gpus} if gpus else {})},
        remote=lambda function: SimpleNamespace(options=options),
        wait=lambda references, num_returns: (references[:1], references[1:]),
        get=lambda reference: reference,
        exceptions=SimpleNamespace(RayTaskError=RuntimeError, RayError=RuntimeError),
    )
    monkeypatch.setitem(__import__("sys").modules, "ray", ray)  # type: ignore[arg-type]
    assert dict(run_tasks(double, range(5), engine="ray", device=device)) == {k: 2 * k for k in range(5)}
    assert (asked["num_cpus"], asked["num_gpus"]) == (1, share)


@pytest.mark.parametrize("device", ["cuda:1", "1"])
def test_ray_chooses_the_gpu(device: str) -> None:
    with pytest.raises(SkelactError, match=f"device '{device}': Ray chooses the GPU of each task; leave --device out"):
        predict("a.mp4", engine="ray", device=device)


def test_a_ray_cluster_that_is_not_there_is_told_at_once() -> None:
    pytest.importorskip("ray", reason="needs the extra skelact[ray]")
    start = time.monotonic()
    with pytest.raises(SkelactError, match=r"no cluster at 127\.0\.0\.1:1: .*; start one with `ray start --head`"):
        list(run_tasks(double, range(2), engine="ray", ray_address="127.0.0.1:1"))
    assert time.monotonic() - start < 30


@pytest.fixture
def in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers import the tasks above, as they import skelact where it is installed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.mark.usefixtures("in_path")
def test_ray_does_every_task_and_retries_one_whose_process_died(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra skelact[ray]")
    markers = [str(tmp_path / name) for name in "abc"]
    results = dict(run_tasks(die_once, markers, engine="ray"))
    assert results == {0: "a", 1: "b", 2: "c"}


@pytest.mark.usefixtures("in_path")
def test_a_ray_cluster_that_loses_a_node_loses_no_task() -> None:
    ray = pytest.importorskip("ray", reason="needs the extra skelact[ray]")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        ray.init(cluster.address)  # to the head, before there is another node
        doomed = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        results = {}
        for k, result in run_tasks(slow_double, range(8), engine="ray"):
            results[k] = result
            if len(results) == 2:
                cluster.remove_node(doomed)
        assert results == {k: 2 * k for k in range(8)}
    finally:
        ray.shutdown()
        cluster.shutdown()
