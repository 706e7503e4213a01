"""Several processes, on one machine or many, that do one job together (docs/many-macs.md).

``mlx.launch`` starts them. They talk over two ways: ``mx.distributed`` carries the numbers of split
models and of training, and a connection of every rank to rank 0 carries the list of work, the
checks at the start and the signs of life, which must not wait without a time limit.
"""

from .agreement import agree
from .group import Group
from .handing_out import spread
from .loading import sharded_load
from .place import Place, place_of

__all__ = ["Group", "Place", "agree", "place_of", "sharded_load", "spread"]
