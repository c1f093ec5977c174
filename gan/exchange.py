"""Means of gradients over the processes of a run, sent in buckets while the backward pass still computes.

Every process holds the same weights and a part of the same global batch. A bucket is sent as soon as the last of its
gradients is there; gradients appear from the last layer to the first, so buckets fill in that order. (torch's
DistributedDataParallel hooks one forward pass; here gradients come from several, see `gan.piecewise`.)
"""

from collections.abc import Iterable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gan.ranks import others_named

_BUCKET = 25 * 2**20  # bytes sent at once: torch's own choice, large enough to fill a link, small enough to overlap


class _Bucket:
    """Parameters whose gradients travel together."""

    def __init__(self, parameters: list[nn.Parameter], group: "dist.ProcessGroup | None") -> None:
        self.parameters, self.group, self.missing = parameters, group, len(parameters)
        self.flat: Tensor | None = None
        self.work: dist.Work | None = None  # None until it is sent

    def send(self) -> None:
        """Start the sum over all processes."""
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        self.flat = torch.cat([part.flatten() for part in parts])
        with others_named():
            self.work = dist.all_reduce(self.flat, group=self.group, async_op=True)

    def receive(self, world: int) -> None:
        """Wait for the sum and replace the gradients by their mean."""
        assert self.flat is not None and self.work is not None
        with others_named():
            self.work.wait()
        self.flat /= world
        start = 0
        for parameter in self.parameters:
            mean = self.flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
            parameter.grad = torch.empty_like(parameter).copy_(mean)  # in the parameter's own layout
        self.missing, self.flat, self.work = len(self.parameters), None, None


class GradientMean:
    """`with exchange:` around the last backward pass of a step replaces gradients by their mean over processes.

    Without torch.distributed, or with one process, it does nothing. All processes must use the same parameters; `group`
    is the process group that gradients are sent over, the default one if None.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        group: "dist.ProcessGroup | None" = None,
        bucket_bytes: int = _BUCKET,
    ) -> None:
        self.world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        self._listening = False
        self._buckets: list[_Bucket] = []
        self._sent = 0
        if self.world == 1:
            return
        for together in _grouped(list(parameters)[::-1], bucket_bytes):
            bucket = _Bucket(together, group)
            self._buckets.append(bucket)
            for parameter in together:
                parameter.register_post_accumulate_grad_hook(partial(self._ready, bucket))  # type: ignore[no-untyped-call]

    def _ready(self, bucket: _Bucket, _: Tensor) -> None:
        if self._listening:
            bucket.missing -= 1
            while self._sent < len(self._buckets) and not self._buckets[self._sent].missing:
                self._send_next()  # in one order everywhere, or processes would add up different buckets

    def _send_next(self) -> None:
        self._buckets[self._sent].send()
        self._sent += 1

    def __enter__(self) -> "GradientMean":
        self._listening = True
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._listening = False
        if kind is None:
            while self._sent < len(self._buckets):  # a bucket with a parameter that had no gradient was never full
                self._send_next()
            for bucket in self._buckets:
                bucket.receive(self.world)
            self._sent = 0


def _grouped(parameters: list[nn.Parameter], limit: int) -> list[list[nn.Parameter]]:
    """Parameters in order, in groups of one type and about `limit` bytes."""
    groups: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        if not groups or size >= limit or groups[-1][0].dtype != parameter.dtype:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return groups
