"""Several processes train one network, as torchrun starts them, on CPUs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import dataset
from torch import distributed as dist

import skelact.parallel
from skelact.annotations import open_annotations, save_annotations
from skelact.checkpoint import load_checkpoint
from skelact.dataset import ClipDataset, samples_of
from skelact.errors import SkelactError
from skelact.evaluate import score_samples
from skelact.metrics import accuracy
from skelact.model import STGCNPP, ModelSettings
from skelact.parallel import Processes, processes
from skelact.skeleton import COCO
from skelact.training import EpochSampler, EvenBatches

SETTINGS = ModelSettings(3, 17, 4, (12, 24), (1, 2))
WORKER = """
import sys
import torch
from test_parallel import batch, network
from skelact.parallel import processes
with processes("cpu") as here:
    clips, labels = batch(here.rank)
    net = network()
    shared = here.share(net)
    torch.nn.functional.cross_entropy(shared(clips), labels).backward()
    gathered = here.gather(here.rank)
    if here.main:
        grads = {name: parameter.grad for name, parameter in net.named_parameters()}
        torch.save({"grads": grads, "gathered": gathered, "count": here.count}, sys.argv[1])
"""


def network() -> STGCNPP:
    torch.manual_seed(0)
    return STGCNPP(SETTINGS, COCO.adjacency()).train()


def batch(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each process's own share."""
    chance = torch.Generator().manual_seed(rank)
    return torch.randn(4, 2, 16, 17, 3, generator=chance), torch.arange(4)


def torchrun(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Two processes, which find each other on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    start += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    tests = Path(__file__).parent
    path = os.pathsep.join(map(str, (tests, tests.parent / "scripts")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*start, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_gradients_are_the_mean_over_the_shares(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    done = torchrun(str(script), str(tmp_path / "grads.pt"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "grads.pt", weights_only=True)
    assert found["count"] == 2
    assert found["gathered"] == [0, 1]
    alone = network()
    wanted = {name: torch.zeros_like(parameter) for name, parameter in alone.named_parameters()}
    for rank in (0, 1):  # one share after another: batch norms see one share each
        alone.zero_grad()
        clips, labels = batch(rank)
        torch.nn.functional.cross_entropy(alone(clips), labels).backward()
        for name, parameter in alone.named_parameters():
            assert parameter.grad is not None
            wanted[name] += parameter.grad / 2
    for name, gradient in wanted.items():
        torch.testing.assert_close(found["grads"][name], gradient, rtol=1e-4, atol=1e-6)


def test_the_command_line_under_torchrun(tmp_path: Path) -> None:
    save_annotations(dataset(), tmp_path / "set.pkl")
    options = ["--epochs", "2", "--repeat", "1", "--batch-size", "8", "--clip-len", "16", "--num-person", "1"]
    done = torchrun("-m", "skelact", "train", "set.pkl", "--out", "run", "--width", "8", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("best.safetensors: top-1") == 1, "only the first process tells"
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["processes"] == 2
    checkpoint = load_checkpoint(tmp_path / "run" / "best.safetensors")
    data = open_annotations(tmp_path / "set.pkl")
    indices = samples_of(data, "val", checkpoint.clips)
    tested = ClipDataset(data.annotations, indices, checkpoint.clips, train=False)
    labels = np.array([data.annotations[k].label for k in indices])
    scores = score_samples(checkpoint.build(), tested, "cpu")
    assert checkpoint.metrics["val_top1"] == accuracy(scores, labels), "gathered exactly"


MIXER = """
import sys
from dataclasses import replace
from skelact import training
from skelact.recipes import TrainSettings

mix = training._Run._mix

def told(run, batch, target):
    mixed = mix(run, batch, target)
    head = run.network.cls_head.fc.weight.detach().sum().item()
    with open(f"{run.here.rank}.txt", "a") as file:
        file.write(f"{mixed[2]} {head}\\n")
    return mixed

training._Run._mix = told
settings = TrainSettings(epochs=2, repeat=1, batch_size=8, clip_len=8, num_person=1, width=8, mixup=0.5)
training.train("set.pkl", "run", settings, device="cpu", progress=False)
"""


def test_each_process_mixes_clips_in_its_own_way(tmp_path: Path) -> None:
    save_annotations(dataset(), tmp_path / "set.pkl")
    (tmp_path / "mixer.py").write_text(MIXER)
    done = torchrun("mixer.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (np.loadtxt(tmp_path / f"{rank}.txt", ndmin=2) for rank in (0, 1))
    assert len(first) == len(second) > 2
    assert (first[:, 0] != second[:, 0]).all(), "the shares of two clips"
    assert (first[:, 1] == second[:, 1]).all(), "but the weights stay alike"


def test_four_streams_under_torchrun(tmp_path: Path) -> None:
    save_annotations(dataset(), tmp_path / "set.pkl")
    options = ["--epochs", "1", "--repeat", "1", "--batch-size", "8", "--clip-len", "16", "--num-person", "1"]
    command = ["train", "set.pkl", "--out", "run", "--stream", "all", "--width", "8", *options]
    done = torchrun("-m", "skelact", *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("four-stream") == 1


@pytest.mark.parametrize(("size", "count"), [(10, 2), (11, 2), (7, 3), (1, 1)])
def test_every_clip_is_drawn_and_every_process_has_as_many(size: int, count: int) -> None:
    shares = [list(EpochSampler(size, 0, rank, count)) for rank in range(count)]
    assert len({len(share) for share in shares}) == 1
    assert {k for share in shares for k in share} == set(range(size))
    later = EpochSampler(size, 0, 0, count)
    later.epoch = 3
    assert all(3 * size <= k < 4 * size for k in later)


def test_alone_nothing_is_shared() -> None:
    with processes("cpu") as here:
        assert here == Processes(0, 1, "cpu")
        net = network()
        assert here.share(net) is net
        assert here.gather("a") == ["a"]


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no other, on which it would keep memory that its owner lacks."""
    tried: list[str | None] = []
    monkeypatch.setattr(skelact.parallel, "choose_device", lambda device: tried.append(device) or device)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    for device in (None, "auto", "cuda"):
        with processes(device) as here:
            assert here == Processes(5, 8, "cuda:1")
    assert tried == ["cuda:1"] * 3
    with pytest.raises(SkelactError, match="device 'cuda:0': several processes take a GPU each"), processes("cuda:0"):
        pass
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(SkelactError, match="a GPU for each process, found 4 for process 5"), processes():
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with processes() as here:
        assert here.device == "cpu", "which gloo knows"


def test_an_error_of_one_process_ends_all(tmp_path: Path) -> None:
    """The other waits in a barrier that nobody else will come to."""
    save_annotations(dataset(), tmp_path / "set.pkl")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "best.safetensors").touch()
    done = torchrun("-m", "skelact", "train", "set.pkl", "--out", "run", "--width", "8", cwd=tmp_path)
    assert done.returncode == 1
    assert "run holds a run already; go on with --resume" in done.stderr


def test_no_batch_is_a_leftover_of_a_few_clips() -> None:
    order = EpochSampler(578, 0, 0, 1)
    batches = list(EvenBatches(order, 32))
    assert len(batches) == len(EvenBatches(order, 32)) == 19
    assert {len(batch) for batch in batches} == {30, 31}
    assert sorted(k for batch in batches for k in batch) == list(range(578))
