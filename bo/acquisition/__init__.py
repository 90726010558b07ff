"""What points promise, whose turn it is to say so, and the search for the best."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "OnePosterior",
    "StudyState",
    "Suggester",
    "Suggestion",
    "Turns",
    "believing",
    "climb",
    "expected_improvement",
    "improvement",
    "log_expected_improvement",
]

if TYPE_CHECKING:
    from bo.acquisition.improvement import believing, expected_improvement, improvement, log_expected_improvement
    from bo.acquisition.one_posterior import OnePosterior
    from bo.acquisition.schedule import Turns
    from bo.acquisition.search import climb
    from bo.acquisition.suggester import StudyState, Suggester, Suggestion
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "OnePosterior": "one_posterior",
            "StudyState": "suggester",
            "Suggester": "suggester",
            "Suggestion": "suggester",
            "Turns": "schedule",
            "believing": "improvement",
            "climb": "search",
            "expected_improvement": "improvement",
            "improvement": "improvement",
            "log_expected_improvement": "improvement",
        },
    )
