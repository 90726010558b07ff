"""The benchmark of tuning: what it reads, what methods may know, what it keeps, and how it sums up."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats
import torch
from torch import Tensor

from bayesmeta.io import save
from bayesmeta.networks import deep_kernel_fit
from benchmarks.tuning import methods as tuning_methods
from benchmarks.tuning import run as tuning
from benchmarks.tuning import runs as tuning_runs
from benchmarks.tuning.cost import cost_table, suggestion_cost
from benchmarks.tuning.data import NUM_GIVEN, Source, given_rows, load, stable_seed
from benchmarks.tuning.layouts import Objective
from benchmarks.tuning.lists import past_values
from benchmarks.tuning.methods import BASELINES, LEARNED
from benchmarks.tuning.runs import Failure, Job, Journal, Plan, Run, make_jobs, play, play_all
from benchmarks.tuning.summary import Curves, average_ranks, gather, hurts, summarise
from bo import SearchSpace, TuningPrior
from bo.replay.pool import Method, Pool
from tests.bo.short import learn_shortly
from tests.families import seed
from tests.seeds import shifted

TASKS = ("a", "b", "c", "d")
NUM_ROWS = 30
SEEDS = [shifted(0), shifted(1)]
LAYOUTS = ("own rows", "shared", "arrays")


def write(folder: Path, layout: str, num_tasks: int = len(TASKS), changed: str | None = None) -> Source:
    """Tasks that prefer x near .3, .35 and so on; the targets of the task `changed` are others."""
    folder.mkdir(exist_ok=True)
    tasks = [*TASKS, *(f"t{i}" for i in range(num_tasks - len(TASKS)))][:num_tasks]
    generator = seed(0)
    x = torch.rand(NUM_ROWS, 2, generator=generator, dtype=torch.float64)
    each = [x if layout != "own rows" else torch.rand(x.shape, generator=generator, dtype=x.dtype) for _ in tasks]
    y = torch.stack([1.0 - (rows[:, 0] - 0.3 - 0.05 * i).abs() for i, rows in enumerate(each)])
    if changed:
        y[tasks.index(changed)] = torch.rand(NUM_ROWS, generator=generator, dtype=y.dtype)
    if layout == "own rows":
        columns = {"p": torch.cat(each)[:, 0].numpy(), "q": torch.cat(each)[:, 1].numpy()}
        dataset = np.repeat(tasks, NUM_ROWS)
        pl.DataFrame({"dataset": dataset, **columns, "accuracy": y.flatten().numpy()}).write_parquet(
            folder / "toy.parquet"
        )
    elif layout == "shared":
        ids = list(range(NUM_ROWS))
        configs = pl.DataFrame(
            {"config": ids, "p__unit": x[:, 0].numpy(), "p": 9 * x[:, 0].numpy(), "q": x[:, 1].numpy()}
        )
        configs.write_parquet(folder / "toy_configs.parquet")
        values = {"task": np.repeat(tasks, NUM_ROWS), "config": ids * num_tasks, "logloss": -y.flatten().numpy()}
        pl.DataFrame(values).write_parquet(folder / "toy_values.parquet")
    else:
        np.savez(folder / "toy.npz", X=x.numpy(), Y=y.numpy(), tasks=np.array(tasks))
    return Source(folder)


every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@every_layout
def test_layouts_are_read_alike(tmp_path: Path, layout: str) -> None:
    source = write(tmp_path, layout)
    assert source.spaces() == ["toy"]
    pools = load(source, "toy")
    assert tuple(pools) == TASKS
    for i, pool in enumerate(pools.values()):
        assert pool.x.shape == (NUM_ROWS, 2)
        p = torch.tensor([params[pool.space.names[0]] for params in pool.params], dtype=torch.float64)
        torch.testing.assert_close(pool.y, 1.0 - (p - 0.3 - 0.05 * i).abs(), rtol=1e-10, atol=1e-10)


def test_folders_of_other_content(tmp_path: Path) -> None:
    pl.DataFrame({"task": ["a"], "y": [1.0]}).write_parquet(tmp_path / "no_configurations_values.parquet")
    np.savez(tmp_path / "curves.npz", curves=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="holds no search space in a layout that is known"):
        Source(tmp_path).spaces()


def test_targets_and_directions(tmp_path: Path) -> None:
    frame = {"dataset": ["a"] * 3 + ["b"] * 3, "p": [0.0, 0.5, 1.0] * 2}
    scores = {"accuracy": [1.0, 2.0, float("nan"), 1.0, 1.0, 1.0], "error": [3.0, 2.0, 1.0, 1.0, 2.0, 3.0]}
    pl.DataFrame({**frame, **scores}).select("dataset", "p", "accuracy").write_parquet(tmp_path / "one.parquet")
    pl.DataFrame({**frame, **scores}).select("dataset", "p", "error").write_parquet(tmp_path / "two.parquet")
    # the target of b does not vary, and a row of a is missing
    (only,) = Source(tmp_path).read("one").items()
    assert only[0] == "a"
    assert only[1].y.tolist() == [1.0, 2.0]
    assert Source(tmp_path, Objective("error")).read("two")["a"].y.tolist() == [-3.0, -2.0, -1.0]
    assert Source(tmp_path, Objective("error", "maximize")).read("two")["a"].y.tolist() == [3.0, 2.0, 1.0]
    with pytest.raises(ValueError, match=r"two\.parquet has no target 'accuracy'"):
        Source(tmp_path, Objective("accuracy")).read("two")


def test_columns_of_shared_configurations(tmp_path: Path) -> None:
    """Text that is numbers, numbers over decades, categories, and entries that are missing."""
    configs = {
        "config": [0, 1, 2, 3],
        "rate": ["0.001", "0.01", "0.1", "adaptive"],
        "kind": ["svm", "tree", "tree", "net"],
        "depth__unit": [None, 0.0, 1.0, float("nan")],
        "same": [7.0] * 4,
    }
    pl.DataFrame(configs, strict=False).write_parquet(tmp_path / "configs.parquet")
    np.savez(tmp_path / "mixed.npz", error=np.array([[0.1, 0.2, 0.3, np.nan], [0.4, 0.3, 0.2, 0.1]]))
    pools = Source(tmp_path).read("mixed")
    assert list(pools) == ["0", "1"]
    assert pools["0"].y.tolist() == [-0.1, -0.2, -0.3]
    whole = pools["1"]
    assert whole.space.names == ("depth", "rate", "kind")
    assert whole.params[3] == {"kind": "net"}
    # depth and rate, missing in the middle, and a column per kind
    expected = [[0.5, 0.0, 0, 1, 0], [0.0, 0.5, 0, 0, 1], [1.0, 1.0, 0, 0, 1], [0.5, 0.5, 1, 0, 0]]
    torch.testing.assert_close(whole.x, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0.0)


def test_every_task_is_held_out_once(tmp_path: Path) -> None:
    few, many = [str(i) for i in range(40)], [str(i) for i in range(41)]
    source = Source(tmp_path)
    for tasks, num_splits in ((few, 40), (many, 5)):
        splits = source.splits(tasks, len(tasks))
        assert len(splits) == num_splits
        assert sorted(task for split in splits for task in split.held_out) == sorted(tasks)
        assert all(set(split.held_out) | set(split.past) == set(tasks) for split in splits)
        assert not any(set(split.held_out) & set(split.past) for split in splits)
    assert len(replace(source, split="5fold").splits(few, 40)) == 5
    judged = source.splits(many, 3)
    assert sorted(task for split in judged for task in split.held_out) == ["0", "1", "2"]
    assert all(len(split.past) in (32, 33) for split in judged)
    (own,) = Source().splits(list(load(Source(), "svc")), 99)
    assert not set(own.held_out) & set(own.past)


def test_given_rows_are_the_same_in_every_process() -> None:
    assert stable_seed("space", "task", 0) == 314771117
    assert given_rows("space", "task", 0, 100) == given_rows("space", "task", 0, 100)
    draws = [given_rows(*key, 1000) for key in (("s", "t", 0), ("s", "t", 1), ("s", "u", 0), ("r", "t", 0))]
    assert len({tuple(draw) for draw in draws}) == 4
    assert all(len(set(draw)) == NUM_GIVEN for draw in draws)


def jobs_of(source: Source, methods: Sequence[str], *, given: bool, num_judged: int = 1) -> list[Job]:
    """Four trials of two seeds."""
    jobs, _ = make_jobs(Plan(source, given, 4), "toy", methods, SEEDS, num_judged, {})
    return jobs


@every_layout
def test_a_held_out_task_does_not_reach_its_prior(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its values changed, the prior is the same to the last bit; with those of a past task changed, it is not."""
    saved: list[Path] = []

    def remember(prior: TuningPrior) -> Method:
        saved.append(tmp_path / f"{len(saved)}.safetensors")
        save(prior, saved[-1])
        return BASELINES["random"]

    monkeypatch.setattr(tuning_methods, "learned", remember)
    for name, changed in (("as it is", None), ("held out", "a"), ("past", "b")):
        source = write(tmp_path / name, layout, changed=changed)
        (job,) = jobs_of(source, ["default"], given=True)
        assert {key[1] for key in job.runs} == {"a"}
        list(play(job))
    whole, held_out, past = (file.read_bytes() for file in saved)
    assert whole == held_out != past


def test_learned_methods_are_told_of_the_past_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[Tensor]] = []

    def spy(past: Sequence[Pool], space: SearchSpace) -> Method:
        told.append([pool.y for pool in past])
        return BASELINES["random"]

    monkeypatch.setitem(LEARNED, "spy", spy)
    source = write(tmp_path, "shared")
    for job in jobs_of(source, ["spy"], given=False, num_judged=2):
        list(play(job))
    pools = load(source, "toy")
    assert [len(values) for values in told] == [3, 3]
    for held_out, values in zip(TASKS, told, strict=False):
        others = [name for name in TASKS if name != held_out]
        assert all(torch.equal(v, pools[name].y) for v, name in zip(values, others, strict=True))


# a method sees the same pool, whichever layout its file has
@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("own rows", "default"),
        *(("shared", name) for name in sorted({*LEARNED, "gpsampler"} - {"permuted", "negated"})),
    ],
)
def test_values_that_were_not_chosen_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, name: str
) -> None:
    """With all values hidden but those given and chosen, the choices are the same."""
    monkeypatch.setattr(deep_kernel_fit, "NUM_STEPS", 10)  # how well it learns does not matter here
    learn_shortly(monkeypatch)
    pools = load(write(tmp_path, layout), "toy")
    pool, past = pools["a"], [pools[name] for name in TASKS[1:]]
    for given in ([], [3, 17, 8, 25, 20]):
        method = LEARNED[name](past, pool.space) if name in LEARNED else BASELINES[name]
        chosen = method(pool, given, 7, shifted(0))
        hidden = torch.full_like(pool.y, torch.nan)
        hidden[given + chosen] = pool.y[given + chosen]
        assert method(replace(pool, y=hidden), given, 7, shifted(0)) == chosen
        assert len(set(given + chosen)) == len(given) + 7


def test_lists_by_hand(tmp_path: Path) -> None:
    pools = load(write(tmp_path, "shared"), "toy")
    pool, past = pools["a"], [pools[name] for name in TASKS[1:]]
    values = torch.stack([p.y for p in past])
    assert torch.equal(past_values(past, pool), values)
    ranks = scipy.stats.rankdata(-values.numpy(), axis=1).mean(0)
    listed = LEARNED["mean_rank"](past, pool.space)(pool, [], 9, 0)
    assert len(set(listed)) == 9
    assert ranks[listed].tolist() == pytest.approx(sorted(ranks)[:9])  # in any order of those that are equal
    regret = (values.amax(1, keepdim=True) - values) / (values.amax(1, keepdim=True) - values.amin(1, keepdim=True))
    first = int(regret.mean(0).argmin())
    second = int(torch.minimum(regret, regret[:, [first]]).mean(0).argmin())
    assert LEARNED["zero_shot"](past, pool.space)(pool, [], 2, 0) == [first, second]


def test_surrogates_know_what_the_past_preferred(tmp_path: Path) -> None:
    """On configurations of its own the new task's pool is ranked as past tasks would rank it."""
    pools = load(write(tmp_path, "own rows"), "toy")
    pool, past = pools["a"], [pools[name] for name in TASKS[1:]]
    values = past_values(past, pool)
    for i, row in enumerate(values, start=1):
        truth = -(pool.x[:, 0] - 0.3 - 0.05 * i).abs()
        assert scipy.stats.spearmanr(row.numpy(), truth.numpy()).statistic > 0.95


def test_runs_are_counted_and_judged(tmp_path: Path) -> None:
    source = write(tmp_path, "arrays")
    pool = load(source, "toy")["a"]
    by_method = {run.key: run for job in jobs_of(source, ["random", "mean_rank"], given=True) for run in play(job)}
    assert list(by_method) == [("toy", "a", method, s) for method in ("random", "mean_rank") for s in SEEDS]
    for (_, task, _, s), run in by_method.items():
        rows = given_rows("toy", task, s, NUM_ROWS)
        assert not set(rows) & set(run.chosen)
        assert len(run.chosen) == 4
        best = [float(pool.y[rows + run.chosen[:t]].max()) for t in range(5)]
        worst, top = float(pool.y.min()), float(pool.y.max())
        assert run.regret == pytest.approx([(top - value) / (top - worst) for value in best], abs=1e-12)
    cold = [run for job in jobs_of(source, ["random", "mean_rank"], given=False) for run in play(job)]
    assert [run.seed for run in cold] == [*SEEDS, None]
    assert all(len(run.regret) == 4 for run in cold)


def test_a_small_pool_ends_its_runs(tmp_path: Path) -> None:
    source = write(tmp_path, "arrays")
    plan = Plan(source, True, 99)
    jobs, keys = make_jobs(plan, "toy", ["random"], SEEDS[:1], 1, {})
    (run,) = [run for job in jobs for run in play(job)]
    assert len(run.chosen) == NUM_ROWS - NUM_GIVEN
    assert make_jobs(plan, "toy", ["random"], SEEDS[:1], 1, {run.key: run})[0] == []
    curves = gather({run.key: run}, keys, SEEDS[:1], given=True, trials=99)
    assert curves.regret.shape == (1, 1, 1, 100)
    assert float(curves.at(99)) == 0.0


def test_pools_of_no_more_than_the_given_rows_and_spaces_of_one_task(tmp_path: Path) -> None:
    np.savez(tmp_path / "tiny.npz", X=np.arange(4.0)[:, None], Y=np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]))
    np.savez(tmp_path / "lone.npz", X=np.arange(4.0)[:, None], Y=np.array([[1.0, 2.0, 3.0, 4.0], [1.0] * 4]))
    plan = Plan(Source(tmp_path), True, 3)
    jobs, _ = make_jobs(plan, "tiny", ["random", "gp", "mean_rank"], SEEDS[:1], 9, {})
    assert {(len(run.chosen), *run.regret) for job in jobs for run in play(job)} == {(0, 0.0)}
    with pytest.raises(ValueError, match="lone needs two tasks or more whose target varies, one to judge on; got 1"):
        make_jobs(plan, "lone", ["random"], SEEDS[:1], 9, {})


def test_a_method_that_repeats_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES, "stuck", lambda pool, given, num_trials, seed: [0] * num_trials)
    source = write(tmp_path, "arrays")
    results = list(play_all(jobs_of(source, ["stuck", "random"], given=False), 1))
    failures = [result for result in results if isinstance(result, Failure)]
    assert len(failures) == 2
    assert "stuck must choose 4 new configurations of a" in failures[0].reason
    assert len(results) == 4


SETTINGS = {"protocol": "given", "target": None}


def test_finished_runs_are_kept_through_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "made" / "x.runs.jsonl"
    source = write(tmp_path, "arrays")
    runs = [run for job in jobs_of(source, ["random", "tpe"], given=True) for run in play(job)]
    journal = Journal(file, SETTINGS)
    for run in runs:
        journal.add(run)
    assert Journal(file, SETTINGS).runs == {run.key: run for run in runs}
    # killed while it wrote the last line: that run alone is lost, and the next one stands on a line of its own
    file.write_text(file.read_text()[:-9])
    again = Journal(file, SETTINGS)
    assert list(again.runs.values()) == runs[:-1]
    (left,), _ = make_jobs(Plan(source, True, 4), "toy", ["random", "tpe"], SEEDS, 1, again.runs)
    assert left.runs == (runs[-1].key,)
    again.add(runs[-1])
    assert Journal(file, SETTINGS).runs == {run.key: run for run in runs}
    assert {key[2] for key in Journal(file, SETTINGS, redo=["tpe"]).runs} == {"random"}
    assert {key[2] for key in Journal(file, SETTINGS).runs} == {"random"}
    with pytest.raises(ValueError, match="give another --out"):
        Journal(file, {**SETTINGS, "protocol": "cold"})


def test_runs_are_done_again_where_more_is_wanted_or_the_table_is_another(tmp_path: Path) -> None:
    source = write(tmp_path, "arrays")
    done = {run.key: run for job in jobs_of(source, ["random"], given=True) for run in play(job)}

    def num_left(source: Source, trials: int) -> int:
        return len(make_jobs(Plan(source, True, trials), "toy", ["random"], SEEDS, 1, done)[0])

    assert num_left(source, 4) == num_left(source, 3) == 0
    assert num_left(source, 5) == 2
    assert num_left(write(tmp_path / "other", "arrays", changed="b"), 4) == 0
    assert num_left(write(tmp_path / "another", "arrays", changed="a"), 4) == 2


def test_ranks_and_harm() -> None:
    regret = torch.randint(4, (5, 3, 2), generator=seed(0)).double() / 4
    regret[0] += 1e-12  # not a difference
    expected = scipy.stats.rankdata(regret.numpy().round(8), axis=0)
    assert average_ranks(regret).numpy() == pytest.approx(expected)
    gp = torch.tensor([0.1, 0.1, 0.0, 0.0])
    assert hurts(torch.tensor([0.112, 0.114, 0.002, 0.004]), gp).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_figures_by_hand() -> None:
    """Two spaces of 30 and 40 tasks: spaces count alike in means, tasks in the share that is hurt."""
    methods = ("gp", "mine")
    spaces = [
        Curves(f"s{i}", methods, torch.rand(2, n, 2, 6, generator=seed(i), dtype=torch.float64), 0)
        for i, n in enumerate((30, 40))
    ]
    summary = summarise("given", spaces)
    values = {figure.name: figure.value for figure in summary.figures}
    assert {int(name.split("/")[-1]) for name in values} == {0, 1, 5}
    first, second = (curves.regret[1, :, :, 5] for curves in spaces)
    base = [curves.regret[0, :, :, 5] for curves in spaces]
    assert values["given/regret/s1/mine/5"] == pytest.approx(float(second.mean()))
    assert values["given/macro/mine/5"] == pytest.approx(float(first.mean() + second.mean()) / 2)
    ratio = (first.mean() + second.mean()) / (base[0].mean() + base[1].mean())
    assert values["given/ratio/mine/5"] == pytest.approx(float(ratio))
    harm = [m.mean(1) > 1.1 * g.mean(1) + 0.003 for m, g in zip((first, second), base, strict=True)]
    assert values["given/hurt/mine/5"] == pytest.approx(float(torch.cat(harm).double().mean()))
    rank = [1.0 + (m > g).double().mean() for m, g in zip((first, second), base, strict=True)]
    assert values["given/rank/mine/5"] == pytest.approx(float(sum(rank)) / 2)
    assert all(low <= values[name] <= high for name, (low, high) in summary.intervals.items())
    # the interval is that of a mean over tasks, as a normal one nearly is: their ratio is 1 +- .02
    low, high = summary.intervals["given/regret/s1/mine/5"]
    task_means = second.mean(1)
    assert (high - low) / 2 == pytest.approx(1.645 * float(task_means.std(correction=0)) / 40**0.5, rel=0.12)


def test_one_run_counts_for_every_seed() -> None:
    def run(method: str, seed: int | None, regret: list[float]) -> Run:
        return Run("s", "t", method, seed, "", [1, 2], regret, 0.0)

    runs = [run("random", 0, [0.4, 0.2]), run("random", 1, [0.8, 0.0]), run("default", None, [0.5, 0.1])]
    found = gather({r.key: r for r in runs}, [r.key for r in runs], [0, 1], given=False, trials=2)
    assert found.methods == ("random", "default")
    assert found.at(2).tolist() == [[[0.2, 0.0]], [[0.1, 0.1]]]
    assert found.shown == [1, 2]


def call(folder: Path, out: Path, *more: str) -> None:
    options = ["--data", str(folder), "--out", str(out), "--trials", "3", "--jobs", "1", *more]
    tuning.main(options)


def test_the_command_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data", "shared")
    out = tmp_path / "figures.json"
    call(tmp_path / "data", out, "--methods", "random,tpe,mean_rank", "--protocol", "given", "--seeds", "5,7")
    written = json.loads(out.read_text())
    names = {f"given/regret/toy/{m}/{t}" for m in ("random", "tpe", "mean_rank") for t in (0, 1, 3)}
    assert names <= set(written["figures"])
    assert "suggest_cpu_s/tpe/50" in written["figures"]
    assert written["seeds"] == [5, 7]
    assert set(written["intervals"]) <= set(written["figures"])
    journal = (tmp_path / "figures.runs.jsonl").read_text().splitlines()
    assert len(journal) == 1 + 3 * 2 * len(TASKS)
    # a second start plays nothing, and comes to the same
    monkeypatch.setattr(tuning_runs, "play", lambda job: pytest.fail("played again"))
    call(tmp_path / "data", out, "--methods", "random,tpe,mean_rank", "--protocol", "given", "--seeds", "5,7")
    assert {k: v for k, v in json.loads(out.read_text())["figures"].items() if "cpu" not in k} == {
        k: v for k, v in written["figures"].items() if "cpu" not in k
    }
    with pytest.raises(SystemExit, match="give another --out"):
        call(tmp_path / "data", out, "--methods", "random", "--protocol", "cold")


def test_what_fails_is_named_and_the_rest_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(pool: Pool, given: list[int], num_trials: int, seed: int) -> list[int]:
        raise ArithmeticError("on purpose")

    monkeypatch.setitem(BASELINES, "tpe", broken)
    write(tmp_path / "data", "shared")
    out = tmp_path / "figures.json"
    with pytest.raises(SystemExit, match="4 of 8 jobs failed, of tpe; the runs of the others are kept"):
        call(tmp_path / "data", out, "--methods", "tpe,random")
    assert not out.exists()
    assert len(Journal(tmp_path / "figures.runs.jsonl", json.loads(first_line(tmp_path))).runs) == 4


def first_line(folder: Path) -> str:
    return (folder / "figures.runs.jsonl").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "gp,magic"], "unknown methods magic; there are default"),
        (["--trials", "0"], "--trials must be at least 1; got 0"),
        (["--jobs", "0"], "--jobs must be at least 1; got 0"),
    ],
)
def test_wrong_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tuning.main(options)
    assert message in capsys.readouterr().err


def test_unknown_spaces_and_folders(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no search space moon; there are boosting, svc, perceptron"):
        tuning.main(["--spaces", "moon"])
    with pytest.raises(SystemExit, match="holds no search space"):
        tuning.main(["--data", str(tmp_path)])


@pytest.mark.slow
def test_worker_processes_give_what_one_does(tmp_path: Path) -> None:
    source = write(tmp_path, "arrays")
    jobs = jobs_of(source, ["random", "tpe", "mean_rank"], given=True, num_judged=2)

    def played(num: int) -> list[dict[str, object]]:
        runs = [run for run in play_all(jobs, num) if isinstance(run, Run)]
        return [{**asdict(run), "cpu_s": 0.0} for run in sorted(runs, key=lambda run: str(run.key))]

    assert played(2) == played(1)


def test_costs_are_measured() -> None:
    figures = suggestion_cost(["random", "tpe", "gp"], sizes=(8,), num=1)
    assert [figure.name for figure in figures] == ["suggest_cpu_s/gp/8", "suggest_cpu_s/tpe/8"]
    assert all(figure.value > 0 for figure in figures)
    assert cost_table(figures).row_count == 2
