"""Blocks of variables that networks propose: learned once under random parameters, exact in models never seen."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "BernoulliProposal",
    "BlockSweeps",
    "ExactMove",
    "GridMotif",
    "GridNetwork",
    "LearnedDeal",
    "LearnedMove",
    "Motif",
    "MotifSchedule",
    "NormalProposal",
    "PartitionSweeps",
    "Partitions",
    "RowSweeps",
    "Scans",
    "SplitProposal",
    "eliminated",
    "learn",
    "learn_splits",
    "single_site",
]

if TYPE_CHECKING:
    from bayesmeta.motifs.grids.exact import eliminated
    from bayesmeta.motifs.grids.kernels import BlockSweeps, RowSweeps
    from bayesmeta.motifs.grids.motif import GridMotif
    from bayesmeta.motifs.grids.moves import ExactMove, LearnedMove
    from bayesmeta.motifs.grids.network import GridNetwork, single_site
    from bayesmeta.motifs.learning import MotifSchedule, learn
    from bayesmeta.motifs.motif import Motif
    from bayesmeta.motifs.networks import BernoulliProposal, NormalProposal
    from bayesmeta.motifs.partitions.kernels import PartitionSweeps
    from bayesmeta.motifs.partitions.learned import LearnedDeal, SplitProposal, learn_splits
    from bayesmeta.motifs.partitions.model import Partitions
    from bayesmeta.motifs.partitions.scans import Scans
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "BernoulliProposal": "networks",
            "BlockSweeps": "grids.kernels",
            "ExactMove": "grids.moves",
            "GridMotif": "grids.motif",
            "GridNetwork": "grids.network",
            "LearnedDeal": "partitions.learned",
            "LearnedMove": "grids.moves",
            "Motif": "motif",
            "MotifSchedule": "learning",
            "NormalProposal": "networks",
            "PartitionSweeps": "partitions.kernels",
            "Partitions": "partitions.model",
            "RowSweeps": "grids.kernels",
            "Scans": "partitions.scans",
            "SplitProposal": "partitions.learned",
            "eliminated": "grids.exact",
            "learn": "learning",
            "learn_splits": "partitions.learned",
            "single_site": "grids.network",
        },
    )
