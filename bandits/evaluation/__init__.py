"""What a policy is worth: from logs, in simulations, beside the best that there is."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "Estimate",
    "FewSamplesWarning",
    "Log",
    "LogWriter",
    "Replayed",
    "Run",
    "UnusableRowsWarning",
    "compare",
    "doubly_robust",
    "fitted_rewards",
    "ips",
    "policy_probabilities",
    "replay",
    "simulate",
    "snips",
]

if TYPE_CHECKING:
    from bandits.evaluation.estimates import (
        Estimate,
        FewSamplesWarning,
        Replayed,
        doubly_robust,
        fitted_rewards,
        ips,
        policy_probabilities,
        replay,
        snips,
    )
    from bandits.evaluation.logs import Log, LogWriter, UnusableRowsWarning
    from bandits.evaluation.simulation import Run, compare, simulate
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Estimate": "estimates",
            "FewSamplesWarning": "estimates",
            "Log": "logs",
            "LogWriter": "logs",
            "Replayed": "estimates",
            "Run": "simulation",
            "UnusableRowsWarning": "logs",
            "compare": "simulation",
            "doubly_robust": "estimates",
            "fitted_rewards": "estimates",
            "ips": "estimates",
            "policy_probabilities": "estimates",
            "replay": "estimates",
            "simulate": "simulation",
            "snips": "estimates",
        },
    )
