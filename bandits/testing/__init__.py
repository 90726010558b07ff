"""Tests for policies of other packages:

    from bandits.testing import Case, laws_of

    @pytest.mark.parametrize("law", laws_of(CASE), ids=lambda law: law.__name__)
    def test_laws(law):
        law(CASE)

A case says how to make a policy, and which decisions and rewards it can have.
"""

from bandits.testing.case import Case
from bandits.testing.laws import LAWS, Law, laws_of

__all__ = ["LAWS", "Case", "Law", "laws_of"]
