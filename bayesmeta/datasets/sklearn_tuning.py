"""The three tuning problems behind the shipped tables: what is tuned, and how one trial is scored.

Each problem is a scikit-learn classifier with 4 to 6 hyperparameters. A trial is scored by 3-fold stratified
cross-validation on at most 800 rows; the score is the class-balanced log-loss, each probability clipped to
[1e-3, 1], so that a model which gives up on a rare class is punished and one silly fold cannot swamp the rest.
Scores are means over folds. The committed tables were made by `benchmarks/tuning/collect_tasks.py` with these
functions, and the demo scores its live trials with them: past and present are the same measurement.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

__all__ = [
    "MAX_ROWS",
    "PROBLEMS",
    "SEED",
    "Fold",
    "Problem",
    "balanced_log_loss",
    "cross_validate",
    "make_folds",
    "subsample",
]

MAX_ROWS = 800
SEED = 20260  # of rows, folds and models in the shipped tables
NUM_FOLDS = 3
CLIP = 1e-3

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """A search space and the classifier that a point of it means.

    `scalings` are the names under which a fold is preprocessed; `scaling_of(params)` picks one of them.
    """

    space: dict[str, BaseDistribution]
    build: Callable[[Params, int], Any]
    scalings: tuple[str, ...] = ("standard",)

    def scaling_of(self, params: Params) -> str:
        return params.get("scaling", self.scalings[0])


@dataclass(frozen=True)
class Fold:
    """One split, preprocessed on its training rows only: scaling name -> (train, test) features."""

    features: dict[str, tuple[np.ndarray, np.ndarray]]
    y_train: np.ndarray
    y_test: np.ndarray


def _svc(params: Params, seed: int) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    weight = None if params["class_weight"] == "none" else params["class_weight"]
    machine = SVC(C=params["C"], gamma=params["gamma"], class_weight=weight, cache_size=100)
    return CalibratedClassifierCV(machine, method="sigmoid", cv=NUM_FOLDS, ensemble=False)


def _boosting(params: Params, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(**params, early_stopping=False, max_bins=64, random_state=seed)


def _perceptron(params: Params, seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        hidden_layer_sizes=(params["hidden_units"],) * params["hidden_layers"],
        activation=params["activation"],
        alpha=params["alpha"],
        learning_rate_init=params["learning_rate_init"],
        batch_size=params["batch_size"],
        early_stopping=True,
        validation_fraction=0.15,
        n_iter_no_change=6,
        max_iter=50,
        random_state=seed,
    )


PROBLEMS: dict[str, Problem] = {
    "svc": Problem(
        {
            "C": FloatDistribution(1e-2, 1e3, log=True),
            "gamma": FloatDistribution(1e-4, 1e1, log=True),
            "class_weight": CategoricalDistribution(("none", "balanced")),
            "scaling": CategoricalDistribution(("standard", "quantile")),
        },
        _svc,
        ("standard", "quantile"),
    ),
    "boosting": Problem(
        {
            "learning_rate": FloatDistribution(1e-2, 1.0, log=True),
            "max_iter": IntDistribution(8, 100, log=True),
            "max_leaf_nodes": IntDistribution(3, 63, log=True),
            "min_samples_leaf": IntDistribution(2, 64, log=True),
            "l2_regularization": FloatDistribution(1e-4, 1e2, log=True),
            "max_features": FloatDistribution(0.2, 1.0),
        },
        _boosting,
    ),
    "perceptron": Problem(
        {
            "hidden_units": IntDistribution(4, 128, log=True),
            "hidden_layers": IntDistribution(1, 3),
            "activation": CategoricalDistribution(("relu", "tanh")),
            "alpha": FloatDistribution(1e-6, 1e1, log=True),
            "learning_rate_init": FloatDistribution(1e-4, 1e-1, log=True),
            "batch_size": IntDistribution(16, 256, log=True),
        },
        _perceptron,
    ),
}


def subsample(x: Any, y: np.ndarray, *, seed: int) -> tuple[Any, np.ndarray]:
    """At most `MAX_ROWS` rows of a dataframe `x`, stratified; classes of fewer than 9 rows are left out.

    Nine rows put three of a class into each of three folds, the least that nested calibration can work with.
    """
    from sklearn.model_selection import train_test_split

    if len(y) > MAX_ROWS:
        keep, _ = train_test_split(np.arange(len(y)), train_size=MAX_ROWS, stratify=y, random_state=seed)
        keep.sort()
        x, y = x.iloc[keep], y[keep]
    labels, counts = np.unique(y, return_counts=True)
    enough = np.isin(y, labels[counts >= 9])
    return x[enough], np.unique(y[enough], return_inverse=True)[1]


def make_folds(x: Any, y: np.ndarray, scalings: tuple[str, ...], *, seed: int) -> list[Fold]:
    """Stratified folds of a dataframe, numbers scaled and strings one-hot encoded from the training rows alone."""
    from sklearn.compose import make_column_transformer
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler

    numbers = list(x.select_dtypes("number").columns)
    strings = [c for c in x.columns if c not in numbers]
    folds = []
    for train, test in StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed).split(x, y):
        features = {}
        for scaling in scalings:
            scaler = StandardScaler()
            if scaling == "quantile":
                scaler = QuantileTransformer(n_quantiles=100, output_distribution="normal", random_state=seed)
            encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
            columns = make_column_transformer((scaler, numbers), (encoder, strings), sparse_threshold=0)
            features[scaling] = (columns.fit_transform(x.iloc[train]), columns.transform(x.iloc[test]))
        folds.append(Fold(features, y[train], y[test]))
    return folds


def balanced_log_loss(y: np.ndarray, probs: np.ndarray) -> float:
    """Mean over classes of the mean of -log p(true class), p clipped to [1e-3, 1]."""
    losses = -np.log(np.clip(probs[np.arange(len(y)), y], CLIP, 1.0))
    return float(np.mean([losses[y == label].mean() for label in np.unique(y)]))


def cross_validate(problem: Problem, params: Params, folds: list[Fold], *, seed: int) -> tuple[float, float]:
    """Balanced log-loss and accuracy of one configuration, each a mean over `folds`."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    losses, hits = [], []
    for fold in folds:
        train, test = fold.features[problem.scaling_of(params)]
        with warnings.catch_warnings():
            # 50 epochs are the budget by design, and small data sets have fewer rows than the largest batch
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", message="Got `batch_size` less than 1 or larger")
            model = problem.build(params, seed).fit(train, fold.y_train)
        probs = model.predict_proba(test)
        losses.append(balanced_log_loss(fold.y_test, probs))
        hits.append(float((probs.argmax(1) == fold.y_test).mean()))
    return float(np.mean(losses)), float(np.mean(hits))
