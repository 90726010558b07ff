"""BoTorch's `SingleTaskGP` fitted to the mode that BoTorch seeks, in a fraction of its time: see `find_mode`."""

from typing import TYPE_CHECKING

import torch

from bo.single_study.mode import find_mode, rbf_and_slope

if TYPE_CHECKING:
    from botorch.models import SingleTaskGP

__all__ = ["fit_single_task_gp"]


def fit_single_task_gp(model: "SingleTaskGP") -> "SingleTaskGP":
    """Fit, in place, a model with BoTorch's defaults and without transforms."""
    like = model.train_targets
    x, y = model.train_inputs[0].double().numpy(), like.double().numpy()
    found = find_mode(x, y, rbf_and_slope, thorough=True)
    model.covar_module.lengthscale = torch.from_numpy(found.lengthscale).to(like)
    model.likelihood.noise_covar.noise = torch.tensor(found.noise_var).to(like)
    model.mean_module.constant = torch.tensor(found.constant).to(like)
    return model.eval()
