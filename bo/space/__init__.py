"""Search spaces: their encoding, conditions, and how that of a study relates to that of the past."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "Between",
    "Conditions",
    "Configuration",
    "MixedColumnWarning",
    "OwnSpace",
    "SearchSpace",
    "Values",
    "View",
    "applying_conditions",
    "differences",
    "from_json",
    "is_ruled_out",
    "learn_conditions",
    "require_conditions",
    "shares",
    "to_json",
    "to_numbers",
]

if TYPE_CHECKING:
    from bo.space.conditions import (
        Between,
        Conditions,
        Values,
        from_json,
        is_ruled_out,
        learn_conditions,
        require_conditions,
        to_json,
    )
    from bo.space.inference import MixedColumnWarning
    from bo.space.search_space import SearchSpace
    from bo.space.study_space import Configuration, OwnSpace, View, applying_conditions, differences, shares, to_numbers
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Between": "conditions",
            "Conditions": "conditions",
            "Configuration": "study_space",
            "MixedColumnWarning": "inference",
            "OwnSpace": "study_space",
            "SearchSpace": "search_space",
            "Values": "conditions",
            "View": "study_space",
            "applying_conditions": "study_space",
            "differences": "study_space",
            "from_json": "conditions",
            "is_ruled_out": "conditions",
            "learn_conditions": "conditions",
            "require_conditions": "conditions",
            "shares": "study_space",
            "to_json": "conditions",
            "to_numbers": "study_space",
        },
    )
