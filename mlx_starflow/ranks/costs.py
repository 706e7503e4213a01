"""What dividing a model among ranks costs: messages and bytes, and the time that they take.

A pass evaluates a window of n tokens in each of R rows (with guidance, captions and null captions
are rows). Every layer that is divided by shares has two all-sums of R * n * channels float32
numbers. Dividing guidance has one exchange of a and b, B * n * 2 D numbers from each rank, for B
pictures with D numbers per token.

Time: an all-sum of S bytes over N ranks in a ring takes 2 (N - 1) (latency + S / (N bandwidth)).
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from ..config import BlockConfig, FlowConfig
from .measure import Link

NUMBER = 4  # bytes, float32


@dataclass(frozen=True)
class Cost:
    """Messages of one pass through a block, seen from one rank."""

    messages: int
    bytes: int  # that the rank gives into them

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.messages + other.messages, self.bytes + other.bytes)

    def seconds(self, ranks: int, latency: float, bandwidth: float) -> float:
        """The time of the messages as all-sums in a ring; an exchange of two ranks is one step."""
        return 2 * (ranks - 1) * (self.messages * latency + self.bytes / (ranks * bandwidth))


def tensor_cost(block: BlockConfig, rows: int, tokens: int) -> Cost:
    """Of a pass of a block that is divided by shares of its layers."""
    messages = 2 * block.layers
    return Cost(messages, messages * rows * tokens * block.channels * NUMBER)


def training_cost(flow: FlowConfig, rows: int) -> Cost:
    """Of the gradient of an adapter's arrays on a batch of ``rows`` pictures, in shares, without
    --grad-checkpoint and without norms of queries and keys: the sums of the pass, and those of the
    gradients of the inputs of attention and MLP (of a gated MLP twice), except for the first layer,
    whose input depends on no trained array. The gradients of factors that all ranks have are one
    message more for every 32 MB."""
    whole, first = Cost(0, 0), True
    for block in flow.blocks:
        tokens = flow.grid_size**2 + (flow.text_length if block.conditioned else 0)
        messages = (5 if block.gated_mlp else 4) * block.layers - (first and block.layers > 0)
        first = first and block.layers == 0
        whole += Cost(messages, messages * rows * tokens * block.channels * NUMBER)
    return whole


def guidance_cost(flow: FlowConfig, pictures: int, tokens: int) -> Cost:
    """Of a pass of a guided block whose captions and null captions are on two ranks."""
    return Cost(1, pictures * tokens * 2 * flow.token_channels * NUMBER)


@dataclass(frozen=True)
class Machine:
    """One of several equal machines."""

    bandwidth: float  # bytes per second of its memory
    arithmetic: float  # floating-point operations per second
    latency: float  # seconds of one message to a neighbour
    link: float  # bytes per second to a neighbour

    def with_link(self, link: Link) -> Machine:
        """This machine with a link that was measured."""
        return dataclasses.replace(self, latency=link.latency, link=link.bandwidth)

    def seconds(self, weights: float, operations: float) -> float:
        """Of a pass that reads so many bytes of weights and makes so many operations."""
        return max(weights / self.bandwidth, operations / self.arithmetic)


def tensor_speedup(
    one: Machine, ranks: int, block: BlockConfig, item: float, rows: int, tokens: int
) -> float:
    """How many times faster a pass is on ``ranks`` machines than on one. ``item``: bytes of one
    weight."""
    weights, operations = _work(block, item, rows, tokens)
    cost = tensor_cost(block, rows, tokens).seconds(ranks, one.latency, one.link)
    alone = one.seconds(weights, operations)
    return alone / (alone / ranks + cost)


def guidance_speedup(
    one: Machine, flow: FlowConfig, block: BlockConfig, item: float, pictures: int, tokens: int
) -> float:
    """The same for guidance on two machines, both of which read all weights."""
    weights, operations = _work(block, item, 2 * pictures, tokens)
    cost = guidance_cost(flow, pictures, tokens)
    sent = cost.messages * one.latency + cost.bytes / one.link
    return one.seconds(weights, operations) / (one.seconds(weights, operations / 2) + sent)


def _work(block: BlockConfig, item: float, rows: int, tokens: int) -> tuple[float, float]:
    """Bytes of weights and operations of a pass, attention to the cache left out."""
    inner = (2 * block.heads + 2 * block.kv_heads) * block.head_dim
    mlp = (3 if block.gated_mlp else 2) * block.mlp_channels
    weights = block.layers * block.channels * (inner + mlp)
    return item * weights, 2.0 * weights * rows * tokens


def handing_out(seconds: Sequence[float], speeds: Sequence[float], desk: float) -> float:
    """The efficiency of handing out items one by one: the time in which the ranks could do all work
    if none ever waited, over the time that they take.

    seconds: of each item on a rank of speed 1. speeds: of the ranks. desk: time that rank 0 takes
    for each item (to hand it out and to keep what was made), one after another.
    """
    free = [(0.0, rank) for rank in range(len(speeds))]
    heapq.heapify(free)
    desk_free = end = 0.0
    for work in seconds:
        now, rank = heapq.heappop(free)
        desk_free = max(desk_free, now) + desk
        done = desk_free + work / speeds[rank]
        end = max(end, done)
        heapq.heappush(free, (done, rank))
    return sum(seconds) / (sum(speeds) * end)
