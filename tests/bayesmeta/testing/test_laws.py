"""The laws of `bayesmeta.testing`, asked of every family."""

import pytest

from bayesmeta.testing import Family, Law, laws_of
from tests.families import FAMILIES

ASKED = {f"{law.__name__}-{name}": (law, family) for name, family in FAMILIES.items() for law in laws_of(family)}


@pytest.mark.parametrize(("law", "family"), ASKED.values(), ids=ASKED)
def test_law(law: Law, family: Family) -> None:
    law(family)
