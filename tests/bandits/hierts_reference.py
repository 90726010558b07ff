"""Hierarchical Thompson sampling in plain NumPy, and the setting that it is compared in.

Ten linear tasks of four weights, five at a time, 200 rounds each, the same ten arms for all; Hong et al. (2022).
"""

import math
from typing import Any

import numpy as np
import torch

from tests.seeds import shifted

D, ARMS, ROUNDS, TASKS, TOGETHER = 4, 10, 200, 10, 5
SHARED_SD, TASK_SD, NOISE_VAR = 1.0, 0.1, 0.5


def reference(features: np.ndarray, theta: np.ndarray, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Regret of each task of HierTS as its authors write it: five tasks at a time, and inverses by the book."""
    between = TASK_SD**2 * np.eye(D)
    gram, moment = np.zeros((TASKS, D, D)), np.zeros((TASKS, D))
    regret = np.zeros(TASKS)
    for first in range(0, TASKS, TOGETHER):
        for t in range(ROUNDS):
            precision, shift = np.eye(D) / SHARED_SD**2, np.zeros(D)
            for s in range(TASKS):
                weight = np.linalg.inv(np.eye(D) + gram[s] @ between)
                precision, shift = precision + weight @ gram[s], shift + weight @ moment[s]
            for s in range(first, first + TOGETHER):
                cov = np.linalg.inv(precision)
                shared = rng.multivariate_normal(cov @ shift, (cov + cov.T) / 2)
                own = np.linalg.inv(np.linalg.inv(between) + gram[s])
                drawn = rng.multivariate_normal(own @ (shared / TASK_SD**2 + moment[s]), (own + own.T) / 2)
                arm = int((features @ drawn).argmax())
                mean = features @ theta[s]
                regret[s] += mean.max() - mean[arm]
                x, y = features[arm], mean[arm] + noise[s, t]
                gram[s] += np.outer(x, x) / NOISE_VAR
                moment[s] += x * y / NOISE_VAR
    return regret


def drawn_run(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(shifted(number))
    features = rng.uniform(-0.5, 0.5, (ARMS, D))
    theta = rng.normal(0.0, SHARED_SD, D) + rng.normal(0.0, TASK_SD, (TASKS, D))
    return features, theta, rng.normal(0.0, math.sqrt(NOISE_VAR), (TASKS, ROUNDS))


def played(policy: Any, features: np.ndarray, theta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    mean = features @ theta.T
    regret = np.zeros(TASKS)
    for first in range(0, TASKS, TOGETHER):
        tasks = torch.arange(first, first + TOGETHER)
        for t in range(ROUNDS):
            choices = policy.choose(task=tasks)
            arm = choices.arm.numpy()
            value = mean[arm, tasks.numpy()]
            regret[tasks.numpy()] += mean[:, tasks.numpy()].max(0) - value
            policy.update(choices, value + noise[tasks.numpy(), t])
    return regret
