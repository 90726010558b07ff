"""Try what was installed, `wheel` or `sdist`: three import names are ours, package data came along, the parts work."""

import subprocess
import sys
import sysconfig
import tempfile
from importlib import import_module, metadata, resources
from pathlib import Path

import torch

site = Path(sysconfig.get_path("purelib"))
for name in ("bayesmeta", "bandits", "bo"):
    where = Path(str(import_module(name).__file__)).parent
    if where != site / name:
        sys.exit(f"{name} is imported from {where}, not from where it was installed")
    owners = metadata.packages_distributions()[name]
    if set(owners) != {"bayesmeta"}:
        sys.exit(f"{name} is installed by {owners}")
    if not (where / "py.typed").exists():
        sys.exit(f"{name}/py.typed is missing: its types would not be seen")

tables = [f.name for f in (resources.files("bayesmeta") / "datasets").iterdir() if f.name.endswith(".parquet")]
if not tables:
    sys.exit("bayesmeta/datasets holds no table")

help_text = subprocess.run([site.parents[2] / "bin" / "bayesmeta", "--help"], capture_output=True, check=True).stdout
if b"fit" not in help_text:
    sys.exit("`bayesmeta --help` does not name its commands")

import bayesmeta as bm  # noqa: E402
from bo.surrogate.model import Surrogate  # noqa: E402

generator = torch.Generator().manual_seed(0)
x = torch.rand(5, 8, 2, dtype=torch.float64, generator=generator)
noise = torch.randn(5, 8, dtype=torch.float64, generator=generator)
tasks = bm.Data.of(x, x[..., 0] + 0.1 * noise)
prior = bm.LinearGaussian.initial(tasks).fit(tasks)
with tempfile.TemporaryDirectory() as folder:
    bm.save(prior, Path(folder) / "prior.safetensors")
    loaded = bm.load(Path(folder) / "prior.safetensors")
if not torch.equal(loaded.predict(x[0]).mean, prior.predict(x[0]).mean):
    sys.exit("a loaded prior predicts something else than the saved one")
Surrogate(loaded.condition(tasks[0])).posterior(x[0])
print(f"bayesmeta {bm.__version__}: {sys.argv[1]} with {', '.join(sorted(tables))}")
