"""Random parts of tasks, for learning that has no use for all of their rows."""

import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data

__all__ = ["random_order", "share_inputs", "some_rows", "some_tasks"]


def random_order(num: int, generator: Generator) -> Tensor:
    """The numbers below `num` in random order, on the device of `generator`."""
    return torch.randperm(num, generator=generator, device=generator.device)


def some_tasks(tasks: Data, most: int, generator: Generator) -> Data:
    """At most `most` of the tasks on the first axis, in random order."""
    return tasks[random_order(len(tasks.mask), generator)[:most].to(tasks.mask.device)]


def some_rows(tasks: Data, most: int, generator: Generator) -> Data:
    """At most `most` real rows of each task, chosen at random; all rows, in their order, where no task has more."""
    if tasks.mask.shape[-1] <= most:
        return tasks
    # random keys, pads last: the smallest of them are a random choice of real rows
    keys = torch.rand(tasks.mask.shape, generator=generator, device=generator.device).to(tasks.mask.device)
    keep = keys.masked_fill(~tasks.mask, 2.0).topk(most, largest=False).indices
    x = tasks.x.take_along_dim(keep[..., None], -2)
    y = tasks.y.take_along_dim(keep.reshape(*keep.shape, *[1] * len(tasks.event_shape)), keep.ndim - 1)
    return Data(x, y, tasks.mask.gather(-1, keep), tasks.task_x)


def share_inputs(tasks: Data) -> bool:
    """Whether all tasks have the same rows of x, and no pads."""
    return bool((tasks.x == tasks.x[:1]).all() & tasks.mask.all())
