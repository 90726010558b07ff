"""The laws of `bayesmeta.testing`, asked of every family."""

import pytest

from bayesmeta.testing import LAWS, Family, Law
from tests.families import FAMILIES

ASKED = {
    f"{law.__name__}-{name}": (law, family)
    for capability, law in LAWS
    for name, family in FAMILIES.items()
    if isinstance(family.prior, capability)
}


@pytest.mark.parametrize(("law", "family"), ASKED.values(), ids=ASKED)
def test_law(law: Law, family: Family) -> None:
    law(family)
