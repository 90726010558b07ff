"""Tests for families of other packages.

They need hypothesis, `pip install bayesmeta[testing]`:

    from bayesmeta.testing import Family, laws_of

    @pytest.mark.parametrize("law", laws_of(FAMILY), ids=lambda law: law.__name__)
    def test_laws(law):
        law(FAMILY)
"""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = ["LAWS", "Family", "Law", "laws_of"]

if TYPE_CHECKING:
    from bayesmeta.testing.family import Family
    from bayesmeta.testing.laws import LAWS, Law, laws_of
else:  # the laws of policies and samplers use a part of this, and do not need hypothesis
    __getattr__, __dir__ = lazily(__name__, {"LAWS": "laws", "Family": "family", "Law": "laws", "laws_of": "laws"})
