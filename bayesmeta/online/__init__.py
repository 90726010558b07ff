"""Posteriors that are updated in place.

`protocol` says what all of them can do, and `start` which way a family takes: `sums` of rows, Gaussian `weights`,
`betas`, the rows of a Gaussian `process`, or all rows as they came, `kept_rows`.
"""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "Begins",
    "DrawsFunctions",
    "InPlace",
    "Index",
    "NoMarginalError",
    "Online",
    "OnlineArmWeights",
    "OnlineBetas",
    "OnlineFeatures",
    "OnlineProcess",
    "OnlineRows",
    "OnlineStatistics",
    "OnlineWeights",
    "RowStatistics",
    "State",
    "Task",
    "distinct",
    "marginal_of",
    "online",
    "rows_before",
    "statistics_from",
    "statistics_state",
]

if TYPE_CHECKING:
    from bayesmeta.online.betas import OnlineBetas
    from bayesmeta.online.kept_rows import OnlineRows
    from bayesmeta.online.process import OnlineProcess
    from bayesmeta.online.protocol import (
        Begins,
        DrawsFunctions,
        Index,
        InPlace,
        NoMarginalError,
        Online,
        State,
        Task,
        distinct,
        marginal_of,
        rows_before,
    )
    from bayesmeta.online.start import online
    from bayesmeta.online.sums import OnlineStatistics, RowStatistics, statistics_from, statistics_state
    from bayesmeta.online.weights import OnlineArmWeights, OnlineFeatures, OnlineWeights
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Begins": "protocol",
            "DrawsFunctions": "protocol",
            "InPlace": "protocol",
            "Index": "protocol",
            "NoMarginalError": "protocol",
            "Online": "protocol",
            "OnlineArmWeights": "weights",
            "OnlineBetas": "betas",
            "OnlineFeatures": "weights",
            "OnlineProcess": "process",
            "OnlineRows": "kept_rows",
            "OnlineStatistics": "sums",
            "OnlineWeights": "weights",
            "RowStatistics": "sums",
            "State": "protocol",
            "Task": "protocol",
            "distinct": "protocol",
            "marginal_of": "protocol",
            "online": "start",
            "statistics_from": "sums",
            "statistics_state": "sums",
            "rows_before": "protocol",
        },
    )
