from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesmeta
from bayesmeta import Data, from_pyro
from tests.bayesmeta.pyro_models.models import noise, normal, weights

DATA = Data.of(None, noise(6, 3) + noise(6, 1, number=1))


def test_a_file_holds_all_but_the_model(tmp_path: Path) -> None:
    prior = from_pyro(normal).fit(DATA, progress=False)
    posterior = prior.condition(DATA[:2])
    for number, saved in enumerate((prior, posterior)):
        path = tmp_path / f"{number}.safetensors"
        saved.save(path)
        again = from_pyro(normal).load(path)
        assert again.equals(saved)
        assert again.learned_from == saved.learned_from
        torch.testing.assert_close(again.predict().mean, saved.predict().mean)
    assert again.condition(DATA[:2]).batch_shape == (2,)
    torch.testing.assert_close(again.params["m"], posterior.params["m"])


def test_the_model_has_to_be_given(tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"
    bayesmeta.save(from_pyro(normal).initial(DATA), path)
    with pytest.raises(ValueError, match=r"all but a model, which is code: load it by from_pyro\(model\).load\(path\)"):
        bayesmeta.load(path)
    assert b"def normal" not in path.read_bytes()


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"
    from_pyro(normal).initial(DATA).save(path)

    def other(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        centre = pyro.sample("centre", dist.Normal(0.0, 3.0))
        with pyro.plate("rows", x.shape[-2]):
            pyro.sample("y", dist.Normal(centre, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"another model. Site 'm' is latent .* there and missing here"):
        from_pyro(other).load(path)
    other_family = bayesmeta.NormalKnownVariance.initial(DATA)
    bayesmeta.save(other_family, path)
    with pytest.raises(ValueError, match=r"it holds a NormalKnownVariance: load it by bayesmeta.load"):
        from_pyro(weights).load(path)
