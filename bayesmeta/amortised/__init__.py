"""Proposals that a network has learned once, for the posterior of any further task: see `AmortisedProposal`."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = ["AmortisedProposal", "PastPosteriors", "ProposalNetwork", "ProposalSchedule", "Simulator", "SummaryDistance"]

if TYPE_CHECKING:
    from bayesmeta.amortised.learning import ProposalSchedule
    from bayesmeta.amortised.network import ProposalNetwork
    from bayesmeta.amortised.proposal import AmortisedProposal
    from bayesmeta.amortised.summaries import SummaryDistance
    from bayesmeta.amortised.tasks import PastPosteriors, Simulator
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "AmortisedProposal": "proposal",
            "PastPosteriors": "tasks",
            "ProposalNetwork": "network",
            "ProposalSchedule": "learning",
            "Simulator": "tasks",
            "SummaryDistance": "summaries",
        },
    )
