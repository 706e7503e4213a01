"""What dividing a model among ranks costs: messages and bytes, and the time that they take.

A pass evaluates a window of n tokens in each of R rows (with guidance, captions and null captions
are rows). Every layer that is divided by shares has two all-sums of R * n * channels float32
numbers. Dividing guidance has one exchange of a and b, B * n * 2 D numbers from each rank, for B
pictures with D numbers per token.

Time: an all-sum of S bytes over N ranks in a ring takes 2 (N - 1) (latency + S / (N bandwidth)).
"""

from __future__ import annotations

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


def guidance_cost(flow: FlowConfig, pictures: int, tokens: int) -> Cost:
    """Of a pass of a guided block whose captions and null captions are on two ranks."""
    return Cost(1, pictures * tokens * 2 * flow.token_channels * NUMBER)


@dataclass(frozen=True)
class Machine:
    """One of several equal machines."""

    bandwidth: float  # bytes per second of its memory
    latency: float  # seconds of one message to a neighbour
    link: float  # bytes per second to a neighbour

    @classmethod
    def with_link(cls, bandwidth: float, link: Link) -> Machine:
        """A machine whose link was measured."""
        return cls(bandwidth, link.latency, link.bandwidth)


def tensor_speedup(
    weights: float, block: BlockConfig, rows: int, tokens: int, ranks: int, one: Machine
) -> float:
    """How many times faster a pass is on ``ranks`` machines than on one, when reading ``weights``
    bytes is what a pass takes time for."""
    alone = weights / one.bandwidth
    cost = tensor_cost(block, rows, tokens)
    return alone / (alone / ranks + cost.seconds(ranks, one.latency, one.link))


def guidance_speedup(
    weights: float, arithmetic: float, flow: FlowConfig, pictures: int, tokens: int, one: Machine
) -> float:
    """The same for guidance on two machines. A pass reads all weights on both; ``arithmetic`` is
    the time in seconds of a pass's arithmetic on one machine, of which each does half."""
    alone = max(weights / one.bandwidth, arithmetic)
    cost = guidance_cost(flow, pictures, tokens)
    sent = cost.messages * one.latency + cost.bytes / one.link
    return alone / (max(weights / one.bandwidth, arithmetic / 2) + sent)
