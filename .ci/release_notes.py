"""Print the notes of a release: what CHANGELOG.md says of this version, or of what is not released yet."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
version = re.search(r'__version__ = "(.+)"', (ROOT / "bayesmeta" / "__init__.py").read_text())[1]
sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[1:]
by_head = {section.partition("\n")[0].strip("[] ").partition("]")[0].split(" ")[0]: section for section in sections}
print(f"# bayesmeta {version}\n\n## {by_head.get(version) or by_head['Unreleased']}")
