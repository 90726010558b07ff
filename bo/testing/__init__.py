"""Tests for samplers and suggesters of other packages:

    from bo.testing import Case, laws_of

    @pytest.mark.parametrize("law", laws_of(CASE), ids=lambda law: law.__name__)
    def test_laws(law):
        law(CASE)

A case says how to make a sampler, and in which space it suggests.
"""

from bo.testing.case import Case
from bo.testing.laws import LAWS, Law, laws_of

__all__ = ["LAWS", "Case", "Law", "laws_of"]
