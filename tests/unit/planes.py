"""Activations as the kernels lay them out, with NaN wherever a kernel must not read or must write."""

import torch

from east.engine.cpu import bindings as k

UNSET = float("nan")


def unset(channels, height, width, batch, dtype):
    """Memory for an activation: (C, G, H, W, 32) with the gaps between channels that kernels expect."""
    groups = k.groups_of(batch)
    memory = torch.full((channels, k.plane_stride(groups, height, width)), UNSET, dtype=dtype)
    return memory[:, : groups * height * width * k.LANES].view(channels, groups, height, width, k.LANES)


def to_planes(images):
    """(N, C, H, W) as an activation; lanes without an image and the gaps hold NaN."""
    batch, channels, height, width = images.shape
    planes = unset(channels, height, width, batch, images.dtype)
    for group, part in enumerate(images.detach().split(k.LANES)):
        planes[:, group, ..., : len(part)] = part.permute(1, 2, 3, 0)
    return planes


def to_images(planes, batch):
    """An activation (..., C, G, H, W, 32) as (..., N, C, H, W)."""
    groups, height, width, lanes = planes.shape[-4:]
    by_image = planes.movedim(-1, -3)  # (..., C, G, 32, H, W)
    merged = by_image.reshape(*planes.shape[:-4], groups * lanes, height, width)
    return merged.movedim(-3, -4)[..., :batch, :, :, :].contiguous()


def to_lanes(rows, fill=UNSET):
    """(N, ...) as (..., G, 32): one number for each image."""
    groups = k.groups_of(len(rows))
    padded = rows.new_full((groups * k.LANES, *rows.shape[1:]), fill)
    padded[: len(rows)] = rows.detach()
    return padded.movedim(0, -1).reshape(*rows.shape[1:], groups, k.LANES).contiguous()


def from_lanes(lanes, batch):
    """(..., G, 32) as (N, ...)."""
    return lanes.flatten(-2)[..., :batch].movedim(-1, 0).contiguous()


def assert_same_bits(found, expected):
    """Compare tensors by name: every bit, but for the sign of zero and the payload of a NaN."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=0, atol=0, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}"
        )


def on_threads(run, counts=(1, 2, 3, 7)):
    """What `run`, which returns tensors by name, finds with one thread; every other number finds the same bits."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(counts[0])
        found = run()
        for threads in counts[1:]:
            torch.set_num_threads(threads)
            assert_same_bits(run(), found)
    finally:
        torch.set_num_threads(before)
    return found
