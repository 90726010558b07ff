"""Posteriors that are updated in place."""

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
    "statistics_from",
    "statistics_state",
    "turn_of",
]

if TYPE_CHECKING:
    from bayesmeta.online.betas import OnlineBetas
    from bayesmeta.online.process import OnlineProcess
    from bayesmeta.online.sums import (
        Begins,
        DrawsFunctions,
        Index,
        InPlace,
        NoMarginalError,
        Online,
        OnlineRows,
        OnlineStatistics,
        RowStatistics,
        State,
        Task,
        distinct,
        marginal_of,
        online,
        statistics_from,
        statistics_state,
        turn_of,
    )
    from bayesmeta.online.weights import OnlineArmWeights, OnlineFeatures, OnlineWeights
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Begins": "sums",
            "DrawsFunctions": "sums",
            "InPlace": "sums",
            "Index": "sums",
            "NoMarginalError": "sums",
            "Online": "sums",
            "OnlineArmWeights": "weights",
            "OnlineBetas": "betas",
            "OnlineFeatures": "weights",
            "OnlineProcess": "process",
            "OnlineRows": "sums",
            "OnlineStatistics": "sums",
            "OnlineWeights": "weights",
            "RowStatistics": "sums",
            "State": "sums",
            "Task": "sums",
            "distinct": "sums",
            "marginal_of": "sums",
            "online": "sums",
            "statistics_from": "sums",
            "statistics_state": "sums",
            "turn_of": "sums",
        },
    )
