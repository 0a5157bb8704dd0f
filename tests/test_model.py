"""The network: its names and shapes are those of the published checkpoints, and it does what a network should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skelact.model import (
    PUBLISHED_CHANNELS,
    PUBLISHED_STRIDES,
    STGCNPP,
    ModelSettings,
    count_operations,
    count_parameters,
)
from skelact.skeleton import COCO, HAND, LAYOUTS, NTU, Layout

TINY = ((12, 12, 24), (1, 1, 2))  # channels, strides


def tiny(layout: Layout = COCO, num_classes: int = 5, in_channels: int = 3, seed: int = 0) -> STGCNPP:
    torch.manual_seed(seed)
    model = STGCNPP(ModelSettings(in_channels, layout.num_joints, num_classes, *TINY), layout.adjacency())
    for module in model.modules():  # a trained network's statistics
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return model.eval()


def clips(
    num: int, num_persons: int = 2, num_frames: int = 20, layout: Layout = COCO, channels: int = 3
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, num_persons, num_frames, layout.num_joints, channels, generator=generator)


def test_parameters_bear_the_published_names_and_shapes() -> None:
    model = STGCNPP(ModelSettings(3, 17, 60), COCO.adjacency())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    published = {
        "backbone.data_bn.weight": (51,),
        "backbone.data_bn.running_mean": (51,),
        "backbone.gcn.0.gcn.A": (3, 17, 17),
        "backbone.gcn.0.gcn.conv.weight": (192, 3, 1, 1),
        "backbone.gcn.0.gcn.conv.bias": (192,),
        "backbone.gcn.0.gcn.bn.weight": (64,),
        "backbone.gcn.0.gcn.down.0.weight": (64, 3, 1, 1),
        "backbone.gcn.0.gcn.down.1.running_var": (64,),
        "backbone.gcn.0.tcn.branches.0.0.weight": (14, 64, 1, 1),  # the first branch takes the rest of 64 / 6
        "backbone.gcn.0.tcn.branches.0.1.weight": (14,),
        "backbone.gcn.0.tcn.branches.0.3.conv.weight": (14, 14, 3, 1),
        "backbone.gcn.0.tcn.branches.1.0.weight": (10, 64, 1, 1),
        "backbone.gcn.0.tcn.branches.3.3.conv.bias": (10,),
        "backbone.gcn.0.tcn.branches.4.1.running_mean": (10,),
        "backbone.gcn.0.tcn.branches.5.weight": (10, 64, 1, 1),
        "backbone.gcn.0.tcn.transform.0.weight": (64,),
        "backbone.gcn.0.tcn.transform.2.weight": (64, 64, 1, 1),
        "backbone.gcn.0.tcn.bn.bias": (64,),
        "backbone.gcn.4.residual.conv.weight": (128, 64, 1, 1),
        "backbone.gcn.4.residual.bn.weight": (128,),
        "backbone.gcn.7.gcn.conv.weight": (768, 128, 1, 1),
        "backbone.gcn.9.gcn.A": (3, 17, 17),
        "cls_head.fc.weight": (60, 256),
        "cls_head.fc.bias": (60,),
    }
    assert {name: shapes.get(name) for name in published} == published
    assert not any(name.startswith("backbone.gcn.0.residual") for name in shapes)  # the first block has none
    assert {name.split(".")[2] for name in shapes if ".residual." in name} == {"4", "7"}
    assert {name.split(".")[2] for name in shapes if ".down." in name} == {"0", "4", "7"}


def test_the_published_shape_is_the_default() -> None:
    settings = ModelSettings(3, 17, 60)
    assert settings.channels == PUBLISHED_CHANNELS == (64, 64, 64, 64, 128, 128, 128, 256, 256, 256)
    assert settings.strides == PUBLISHED_STRIDES == (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)


@pytest.mark.parametrize(
    ("layout", "parameters", "operations"), [(COCO, 1.39, 1.95), (NTU, 1.40, 2.96)], ids=["coco", "nturgb+d"]
)
def test_the_published_size(layout: Layout, parameters: float, operations: float) -> None:
    model = STGCNPP(ModelSettings(3, layout.num_joints, 60), layout.adjacency()).eval()
    assert round(count_parameters(model) / 1e6, 2) == parameters
    assert round(count_operations(model, (2, 100, layout.num_joints, 3)) / 1e9, 2) == operations


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("num_persons", [1, 2, 3])
def test_clips_go_in_and_logits_come_out(layout: Layout, num_persons: int) -> None:
    model = tiny(layout, num_classes=7)
    x = clips(3, num_persons, layout=layout)
    with torch.no_grad():
        assert model(x).shape == (3, 7)
        assert model.features(x).shape == (3, 24)
        assert model.backbone(x).shape == (3, num_persons, 10, layout.num_joints, 24)


@pytest.mark.parametrize(
    ("channels", "strides", "in_channels"),
    [((6,), (1,), 2), ((18,), (2,), 3), ((6, 12, 12, 30), (1, 2, 1, 2), 2), ((64, 64, 128), (1, 1, 1), 3)],
)
def test_other_depths_widths_and_strides(channels: tuple[int, ...], strides: tuple[int, ...], in_channels: int) -> None:
    model = STGCNPP(ModelSettings(in_channels, 21, 4, channels, strides), HAND.adjacency()).eval()
    with torch.no_grad():
        out = model.backbone(clips(2, 1, 16, HAND, in_channels))
    assert out.shape == (2, 1, 16 // int(np.prod(strides)), 21, channels[-1])
    assert len(model.backbone.gcn) == len(channels)


def test_any_length_of_clip_goes_down_to_one_frame() -> None:
    model = tiny()
    for num_frames in (1, 2, 3, 33, 100):
        with torch.no_grad():
            assert torch.isfinite(model(clips(1, num_frames=num_frames))).all()


def test_a_clip_scores_alike_alone_and_in_a_batch() -> None:
    model, x = tiny(), clips(4)
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(clip[None]) for clip in x])
        backwards = model(x.flip(0)).flip(0)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, backwards, rtol=1e-4, atol=1e-5)


def test_slots_are_treated_alike_and_an_empty_one_adds_a_constant() -> None:
    """Persons are averaged: their order does not matter, and an empty slot is the same empty slot for everybody."""
    model, x = tiny(), clips(3)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(x.flip(1)), rtol=1e-4, atol=1e-5)
        one = x[:, :1]
        padded = torch.cat([one, torch.zeros_like(one)], dim=1)
        empty = model.features(torch.zeros_like(one))
        torch.testing.assert_close(model.features(padded), (model.features(one) + empty) / 2, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(torch.cat([one, one], dim=1)), model(one), rtol=1e-4, atol=1e-5)


def with_empty_slots() -> torch.Tensor:
    """Four clips of three slots: one person, three, two, nobody."""
    x = clips(4, num_persons=3)
    x[0, 1:] = x[2, 0] = x[3] = 0
    return x


def test_empty_slots_that_are_computed_once_leave_the_logits_as_they_are() -> None:
    model, x, rows = tiny(), with_empty_slots(), []
    model.backbone.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].flatten(0, 1).shape[0]))
    plain = model(x)
    model.skip_empty = True
    torch.testing.assert_close(model(x), plain)
    assert rows == [12, 7], "the six people and nobody"


def test_empty_slots_that_are_computed_once_count_once_in_training() -> None:
    model, other, x = tiny().train(), tiny().train(), with_empty_slots()
    model.skip_empty = True
    model(x).sum().backward()
    slots = x.flatten(0, 1)
    other(torch.cat([torch.zeros_like(slots[:1]), slots[slots.flatten(1).any(1)]])[:, None])
    for (name, ours), theirs in zip(model.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_graph_decides_which_joints_talk() -> None:
    """In one graph unit a joint hears itself and its neighbours only."""
    model = tiny()
    unit = model.backbone.gcn[0].gcn
    x = torch.randn(1, 4, 17, 3, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, :, COCO.joints.index("left_elbow")] += 1
    with torch.no_grad():
        difference = (unit(x) - unit(changed)).abs().amax(dim=(0, 1, 3))
    heard = {COCO.joints[v] for v in range(17) if difference[v] > 1e-6}
    assert "left_elbow" in heard
    assert heard <= {"left_elbow", "left_wrist", "left_shoulder"}


def test_a_graphs_entry_leads_from_its_row_to_its_column() -> None:
    """A[k, v, w] carries joint v to joint w."""
    unit = tiny().backbone.gcn[1].gcn
    with torch.no_grad():
        unit.A.zero_()
        unit.A[0, 3, 7] = 1
        x = torch.rand(1, 4, 17, 12, generator=torch.Generator().manual_seed(0)) + 1
        changed = x.clone()
        changed[:, :, 3] += 1
        first = x.permute(0, 3, 1, 2)
        mixed = unit.bn(torch.einsum("nctv,vw->nctw", unit.conv(first)[:, :12], unit.A[0]))
        torch.testing.assert_close(unit(x), torch.relu(mixed + first).permute(0, 2, 3, 1))
        difference = (unit(x) - unit(changed)).abs().amax(dim=(0, 1, 3))
    assert torch.nonzero(difference > 1e-6).ravel().tolist() == [3, 7]


def test_time_is_seen_nine_frames_wide_by_one_block() -> None:
    """Kernel 3 at dilation 4 reaches four frames to each side, no farther."""
    block = tiny().backbone.gcn[0]
    x = torch.randn(1, 21, 17, 3, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 10] += 1
    with torch.no_grad():
        difference = (block(x) - block(changed)).abs().amax(dim=(0, 2, 3))
    touched = torch.nonzero(difference > 1e-6).ravel().tolist()
    assert touched
    assert min(touched) >= 6
    assert max(touched) <= 14


def test_every_parameter_learns_and_the_graph_too() -> None:
    model = tiny().train()
    loss = torch.nn.functional.cross_entropy(model(clips(6)), torch.tensor([0, 1, 2, 3, 4, 0]))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    for block in model.backbone.gcn:
        assert block.gcn.A.grad.abs().sum() > 0


def test_the_graph_starts_from_the_layouts_and_is_each_blocks_own() -> None:
    adjacency = COCO.adjacency()
    model = STGCNPP(ModelSettings(3, 17, 4, *TINY), adjacency)
    for block in model.backbone.gcn:
        np.testing.assert_array_equal(block.gcn.A.detach().numpy(), adjacency)
    with torch.no_grad():
        model.backbone.gcn[0].gcn.A += 1
    np.testing.assert_array_equal(model.backbone.gcn[1].gcn.A.detach().numpy(), adjacency)
    np.testing.assert_array_equal(adjacency, COCO.adjacency())


def test_it_learns_two_made_up_classes() -> None:
    """Hands up or not, in noise: fifteen steps are enough."""
    torch.manual_seed(0)
    model = STGCNPP(ModelSettings(3, 17, 2, (12, 24), (1, 2)), COCO.adjacency())
    x = torch.randn(16, 1, 8, 17, 3) * 0.3
    labels = torch.arange(16) % 2
    x[labels == 1, :, :, 9:11, 1] -= 2
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(15):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    with torch.no_grad():
        assert (model.train()(x).argmax(1) == labels).float().mean() > 0.9


# --- counting ----------------------------------------------------------------------------------------------------


def operations_by_hand(settings: ModelSettings, num_persons: int, num_frames: int) -> int:
    """Multiply-accumulates, two for each output of a batch norm, one for each of a pooling and of the last mean."""
    V, T, C = settings.num_joints, num_frames, settings.in_channels
    total = 2 * V * C * T  # data_bn
    for i, (out, stride) in enumerate(zip(settings.channels, settings.strides, strict=True)):
        here, T_out = T * V, (T - 1) // stride + 1
        there = T_out * V
        total += C * 3 * out * here  # the 1x1 convolution to three subsets
        total += 3 * out * T * V * V  # their products with A
        total += 2 * out * here  # bn
        if out != C:
            total += C * out * here + 2 * out * here  # down and its bn
        width = out // 6
        for first in (True, False, False, False):
            branch = out - 5 * width if first else width
            total += out * branch * here + 2 * branch * here + 3 * branch * branch * there
        total += out * width * here + 2 * width * here + width * there  # max pool
        total += out * width * there
        total += 2 * out * there + out * out * there + 2 * out * there  # transform, bn
        if i > 0 and (out != C or stride != 1):
            total += C * out * there + 2 * out * there
        C, T = out, T_out
    total += C * T * V  # mean
    return num_persons * total + C * settings.num_classes


@pytest.mark.parametrize("num_persons", [1, 2])
@pytest.mark.parametrize("num_frames", [8, 9])
def test_operations_counted_by_hand(num_persons: int, num_frames: int) -> None:
    model = tiny()
    counted = count_operations(model, (num_persons, num_frames, 17, 3))
    assert counted == operations_by_hand(model.settings, num_persons, num_frames)


def test_counting_leaves_the_network_as_it_was() -> None:
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    first = count_operations(model, (2, 10, 17, 3))
    assert first == count_operations(model, (2, 10, 17, 3))
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_parameters_counted_by_hand() -> None:
    linear = 24 * 5 + 5
    model = tiny(num_classes=5)
    assert count_parameters(model.cls_head) == linear
    assert count_parameters(model) == sum(p.numel() for p in model.parameters())
    assert count_parameters(tiny(num_classes=6)) - count_parameters(model) == 25


def test_the_merged_network_trains_as_the_plain_one() -> None:
    """Same loss, gradients and batch norm statistics as layer by layer (``scripts/plain_stgcnpp.py``)."""
    from plain_stgcnpp import PlainSTGCNPP

    settings = ModelSettings(3, 17, 5, (12, 24, 24), (1, 2, 1))
    torch.manual_seed(0)
    plain, ours = PlainSTGCNPP(settings, COCO.adjacency()), STGCNPP(settings, COCO.adjacency())
    ours.load_state_dict(plain.state_dict())
    x, labels = clips(4, 2, 20), torch.tensor([0, 1, 2, 3])
    for network in (plain, ours):
        torch.nn.functional.cross_entropy(network(x), labels).backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(dict(ours.named_parameters())[name].grad, parameter.grad, rtol=1e-3, atol=1e-5)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(dict(ours.named_buffers())[name], buffer, rtol=1e-4, atol=1e-6)
