"""What points promise, whose turn it is to say so, and the search for the best."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "believing",
    "climb",
    "expected_improvement",
    "improvement",
    "log_expected_improvement",
    "suggest",
]

if TYPE_CHECKING:
    from bo.acquisition.improvement import believing, expected_improvement, improvement, log_expected_improvement
    from bo.acquisition.schedule import suggest
    from bo.acquisition.search import climb
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "believing": "improvement",
            "climb": "search",
            "expected_improvement": "improvement",
            "improvement": "improvement",
            "log_expected_improvement": "improvement",
            "suggest": "schedule",
        },
    )
