"""Tests for families of other packages.

They need hypothesis, `pip install bayesmeta[testing]`:

    from bayesmeta.testing import Family, laws_of

    @pytest.mark.parametrize("law", laws_of(FAMILY), ids=lambda law: law.__name__)
    def test_laws(law):
        law(FAMILY)
"""

from bayesmeta.testing.family import Family
from bayesmeta.testing.laws import LAWS, Law, laws_of

__all__ = ["LAWS", "Family", "Law", "laws_of"]
