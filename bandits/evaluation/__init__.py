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
    from bandits.evaluation.along_a_log import Replayed, fitted_rewards, policy_probabilities, replay
    from bandits.evaluation.estimates import Estimate, FewSamplesWarning, doubly_robust, ips, snips
    from bandits.evaluation.log_writer import LogWriter, UnusableRowsWarning
    from bandits.evaluation.logs import Log
    from bandits.evaluation.simulation import Run, compare, simulate
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Estimate": "estimates",
            "FewSamplesWarning": "estimates",
            "Log": "logs",
            "LogWriter": "log_writer",
            "Replayed": "along_a_log",
            "Run": "simulation",
            "UnusableRowsWarning": "log_writer",
            "compare": "simulation",
            "doubly_robust": "estimates",
            "fitted_rewards": "along_a_log",
            "ips": "estimates",
            "policy_probabilities": "along_a_log",
            "replay": "along_a_log",
            "simulate": "simulation",
            "snips": "estimates",
        },
    )
