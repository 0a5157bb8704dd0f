"""How long an answer takes where others keep the cores busy too, by how long torch's threads spin when they wait.

    python scripts/beside_others.py

libgomp, which torch brings on Linux, has them spin for 300,000 rounds by default; skelact for 5,000.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time

import click

SPINS = {"libgomp's default": "300000", "skelact's": "5000"}


def busy(core: int) -> None:
    """Keep it at work, as a program of its own."""
    os.setsid()
    os.sched_setaffinity(0, {core})
    while True:
        pass


def answer_s(rounds: int) -> float:
    """Seconds that the shipped networks take for ten clips of two people; the best of some rounds."""
    import numpy as np

    from skelact.classifier import Classifier

    classifier = Classifier(["skelact-daily"], device="cpu")
    keypoint = np.random.default_rng(0).normal(300, 50, (2, 235, 17, 2)).astype(np.float32)
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        classifier.scores(keypoint, np.ones(keypoint.shape[:3], np.float32), (720, 1280), 10)
        times.append(time.perf_counter() - start)
    return min(times[1:])


@click.command()
@click.option("--rounds", default=3)
@click.option("--others", "per_core", default=2, show_default=True, help="Busy processes on each core.")
@click.option("--only", is_flag=True, hidden=True)
def main(rounds: int, per_core: int, only: bool) -> None:
    """Time it alone, then beside busy processes."""
    if only:
        click.echo(answer_s(rounds))
        return
    seconds: dict[str, dict[str, float]] = {name: {} for name in SPINS}
    cores = sorted(os.sched_getaffinity(0)) * per_core
    others = [multiprocessing.Process(target=busy, args=(core,), daemon=True) for core in cores]
    for state in ("alone", "beside others"):
        if state != "alone":
            for other in others:
                other.start()
        for name, spins in SPINS.items():
            command = [sys.executable, __file__, "--only", "--rounds", str(rounds)]
            environment = {**os.environ, "GOMP_SPINCOUNT": spins}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            seconds[name][state] = round(float(done.stdout), 3)
    click.echo(json.dumps(seconds, indent=2))


if __name__ == "__main__":
    main()
