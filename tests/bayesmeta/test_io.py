"""A saved prior comes back as it was, or not at all."""

import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

import bayesmeta as bm
from bayesmeta import io
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.protocol import Learnable
from tests.families import FAMILIES, Family, seed

every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


def linear() -> bm.LinearGaussian:
    return FAMILIES["linear_gaussian"].prior


@dataclasses.dataclass(frozen=True, eq=False)
class Everything(TensorFields):
    """One of each kind of field."""

    weights: Float[Tensor, "d"]
    offsets: Float[Tensor, "d"]
    scale: float
    content: Any
    inner: TensorFields | None = None


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers `Everything` as an installed package would."""
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bayesmeta.families]\nEverything = {__name__}:Everything\n")
    monkeypatch.syspath_prepend(tmp_path)
    io._registered.cache_clear()
    yield
    io._registered.cache_clear()


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, types included."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, TensorFields):
        return type(a) is type(b) and same(a.state_dict(), b.state_dict())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def rewrite(path: Path, change: Any) -> None:
    """Change the header and sign it again, as somebody who means harm would."""
    raw = path.read_bytes()
    tensors = safetensors.torch.load(raw)
    header, _ = io._parse(raw)
    header = change(header, tensors) or header
    header["checksum"] = io._checksum(header, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {io.KEY: json.dumps(header)}))


@every_family
def test_a_loaded_prior_predicts_the_same_bits(family: Family, tmp_path: Path) -> None:
    prior = family.prior
    learned = prior.fit(family.tasks([5, 6, 7, 8])) if isinstance(prior, Learnable) else prior.condition(family.rows(5))
    x = family.draw_x(4, seed(1))
    for prior in (family.prior, learned, learned.condition(family.rows(3)), learned.condition(family.tasks([2, 0]))):
        bm.save(prior, tmp_path / "prior")
        loaded = bm.load(tmp_path / "prior")
        assert same(loaded, prior)
        before, after = prior.predict(x), loaded.predict(x)
        assert torch.equal(before.mean, after.mean)
        assert torch.equal(before.variance, after.variance)


def test_the_file_says_what_it_holds(tmp_path: Path) -> None:
    prior = dataclasses.replace(linear(), learned_from=LearnedFrom(3, 20))
    bm.save(prior, tmp_path / "a")
    header = io.read_header(tmp_path / "a")
    assert (header["family"], header["format"]) == ("LinearGaussian", io.FORMAT)
    assert header["learned_from"] == {"tasks": 3, "rows": 20}
    assert header["versions"] == {"bayesmeta": bm.__version__, "torch": str(torch.__version__)}
    assert set(safetensors.torch.load_file(tmp_path / "a")) == {"loc", "precision", "noise_var"}
    bm.save(prior, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text()
tensors = st.sampled_from(
    [torch.arange(3), torch.tensor(True), torch.zeros(2, 0), torch.tensor(math.nan).half(), torch.ones(1).expand(4)]
)
contents = st.recursive(
    scalars | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(content=contents)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_every_kind_of_field_comes_back(everything: None, tmp_path: Path, content: Any) -> None:
    # NaN has many bit patterns in a tensor and equals none: compare those by place
    prior = Everything(
        torch.ones(2), torch.ones(2), 1, {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}, "c": content}, linear()
    )
    bm.save(prior, tmp_path / "prior")
    loaded = bm.load(tmp_path / "prior")
    assert same(_nan_free(loaded.content), _nan_free(prior.content))
    assert same(loaded.inner, prior.inner)
    assert same(loaded.weights, prior.weights)


def _nan_free(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.nan_to_num(7.0) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {k: _nan_free(v) for k, v in value.items()}
    return type(value)(map(_nan_free, value)) if isinstance(value, list | tuple) else value


def test_what_cannot_be_saved_is_named(everything: None, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"content\.0\.a cannot be saved: it is a set"):
        bm.save(Everything(torch.ones(1), torch.ones(1), 1.0, [{"a": {1}}]), tmp_path / "prior")
    with pytest.raises(TypeError, match="prior"):
        bm.save(torch.ones(1), tmp_path / "prior")

    class Stranger(TensorFields):
        pass

    with pytest.raises(TypeError, match="Stranger cannot be saved: no installed package lists it"):
        bm.save(Stranger(), tmp_path / "prior")
    assert not (tmp_path / "prior").exists()


# ---- files that are not priors


def test_missing_files_and_directories(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        bm.load(tmp_path / "none")
    with pytest.raises(ValueError, match="is a directory"):
        bm.load(tmp_path)
    with pytest.raises(ValueError, match="not a regular file"):
        bm.load("/dev/zero")
    with pytest.raises(ValueError, match="is a directory"):
        bm.save(linear(), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"folder .*none does not exist"):
        bm.save(linear(), tmp_path / "none" / "prior")


def test_a_file_cut_short_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "prior"
    bm.save(linear(), path)
    raw = path.read_bytes()
    for length in range(0, len(raw), 7):
        path.write_bytes(raw[:length])
        with pytest.raises(ValueError, match="cut short") as caught:
            bm.load(path)
        assert str(path) in str(caught.value)


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "prior"
    path.write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(ValueError, match="not a safetensors file"):
        bm.load(path)
    for metadata in (None, {"format": "pt"}):
        safetensors.torch.save_file({"loc": torch.ones(3)}, path, metadata)
        with pytest.raises(ValueError, match="a safetensors file, but not one"):
            bm.load(path)
        with pytest.raises(ValueError, match="a safetensors file, but not one"):
            io.read_header(path)


def test_a_newer_format(tmp_path: Path) -> None:
    bm.save(linear(), tmp_path / "prior")
    rewrite(tmp_path / "prior", lambda header, _: header.update(format=99))
    with pytest.raises(ValueError, match=r"its format is 99, and .* reads up to 1. Upgrade"):
        bm.load(tmp_path / "prior")


def test_a_family_that_nobody_registers(everything: None, tmp_path: Path) -> None:
    bm.save(linear(), tmp_path / "prior")
    rewrite(tmp_path / "prior", lambda header, _: header["prior"].update(object="Popen", package="subprocess"))
    with pytest.raises(ValueError, match=r"no installed package registers the family 'Popen'.* Install 'subprocess'"):
        bm.load(tmp_path / "prior")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "prior"
    bm.save(dataclasses.replace(linear(), learned_from=LearnedFrom(3, 20)), path)
    return path


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=300)
def test_a_flipped_bit_is_an_error_or_changes_nothing(saved: Path, where: float, bit: int) -> None:
    raw = bytearray(saved.read_bytes())
    raw[int(where * len(raw))] ^= 1 << bit
    damaged = saved.with_name("damaged")
    damaged.write_bytes(raw)
    try:
        loaded = bm.load(damaged)
    except ValueError:
        return
    assert same(loaded, bm.load(saved))


def _nested(depth: int) -> Any:
    node: Any = 1
    for _ in range(depth):
        node = [node]
    return node


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, t: h["prior"]["state"].update(noise_var="cheap"), "."),
        (lambda h, t: h["prior"]["state"].update(noise_var=-1.0), "."),
        (lambda h, t: h["prior"]["state"].update(loc=None), "loc"),
        (lambda h, t: h["prior"]["state"].update(learned_from="all"), "learned_from"),
        (lambda h, t: h["prior"]["state"].update(extra=1), "extra"),
        (lambda h, t: h["prior"]["state"].pop("loc"), "loc"),
        (lambda h, t: h["prior"]["state"]["loc"].update(tensor="elsewhere"), "does not know"),
        (lambda h, t: h["prior"].update(state=[]), "does not know"),
        (lambda h, t: h.update(prior=3), "no prior but a int"),
        (lambda h, t: h.update(prior={"eval": "1"}), "does not know"),
        (lambda h, t: h.update(prior={"dict": [[{"dict": []}, 1]]}), "unhashable"),
        (lambda h, t: h.update(prior=_nested(400)), "."),
        (lambda h, t: h.pop("prior"), "prior"),
        (lambda h, t: h.update(format="1"), "."),
        (lambda h, t: t.update(loc=torch.ones(4, dtype=torch.float64)), "precision"),
        (lambda h, t: t.update(loc=torch.ones(3, dtype=torch.int64)), "loc"),
        (lambda h, t: t.update(noise_var=torch.full((), math.nan, dtype=torch.float64)), "noise_var must be finite"),
        (lambda h, t: t.update(loc=torch.zeros(2**40, 0)), "beyond the size of the file"),
    ],
)
def test_content_made_to_do_harm(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "prior"
    bm.save(linear(), path)
    rewrite(path, lambda header, tensors: change(header, tensors) and None)
    with pytest.raises(ValueError, match=message) as caught:
        bm.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, t: t.update(weights=torch.ones(3)), "offsets of Everything must be .*; got torch.float32 of shape"),
        (lambda h, t: t.update(weights=torch.ones(2, dtype=torch.int8)), "weights of Everything must be .*torch.int8"),
        (lambda h, t: h["prior"]["state"].update(scale="big"), "scale of Everything must be float; got big"),
        (lambda h, t: h["prior"]["state"].update(inner=[1]), "inner of Everything must be .*TensorFields | None; got"),
    ],
)
def test_types_are_checked_without_the_hook_of_the_tests(
    everything: None, tmp_path: Path, change: Any, message: str
) -> None:
    path = tmp_path / "prior"
    bm.save(Everything(torch.ones(2), torch.ones(2), 1.0, None), path)
    rewrite(path, lambda header, tensors: change(header, tensors) and None)
    with pytest.raises(ValueError, match=message):
        bm.load(path)


@pytest.mark.parametrize(
    "header",
    [
        '{"__metadata__":{"bayesmeta":"' + "[" * 100_000 + '"}}',
        '{"__metadata__":{"bayesmeta":"{}"}}',
        '{"__metadata__":{"bayesmeta":"[]"}}',
        '{"__metadata__":{"bayesmeta":"{\\"checksum\\":1,\\"format\\":' + "9" * 5000 + '}"}}',
        '{"__metadata__":' + '{"a":' * 5000 + "1" + "}" * 5001,
        '{"a":{"dtype":"F64","shape":[1099511627776],"data_offsets":[0,8796093022208]}}',
        '{"a":{"dtype":"F64","shape":[4611686018427387904,4],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"F64","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}',
        '{"a":{"dtype":"F64","shape":[-1],"data_offsets":[0,8]}}',
        '{"a":3}',
        "{" + " " * 1000,
        "{",
    ],
)
def test_headers_made_to_do_harm(tmp_path: Path, header: str) -> None:
    path = tmp_path / "prior"
    raw = header.encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(ValueError, match="cannot load"):
        bm.load(path)
    path.write_bytes((2**62).to_bytes(8, "little") + raw)
    with pytest.raises(ValueError, match="cannot load"):
        bm.load(path)


# ---- files that appear whole or not at all


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prior"
    bm.save(linear(), path)

    def broken(*_: Any) -> None:
        raise OSError("no space left")

    for name in ("fsync", "replace"):
        for nameless in (True, False):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, broken)
                if not nameless:
                    patch.delattr(os, "O_TMPFILE", raising=False)
                with pytest.raises(OSError, match="no space left"):
                    bm.save(dataclasses.replace(linear(), loc=torch.zeros(3, dtype=torch.float64)), path)
            assert os.listdir(tmp_path) == ["prior"]
            assert same(bm.load(path), linear())


def test_a_save_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    bm.save(linear(), tmp_path / "prior")
    assert os.listdir(tmp_path) == ["prior"]
    assert same(bm.load(tmp_path / "prior"), linear())


def test_a_save_goes_through_a_link_and_obeys_the_umask(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("prior")
    before = os.umask(0o027)
    try:
        bm.save(linear(), tmp_path / "link")
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "prior").stat().st_mode & 0o777 == 0o640


SAVE_FOR_EVER = """
import sys, torch, bayesmeta
torch.set_num_threads(1)
def prior(value):
    eye = torch.eye(1000, dtype=torch.float64)
    return bayesmeta.LinearGaussian(eye[0] * 0.0 + value, eye, eye[0, 0])
priors = [prior(0.0), prior(1.0)]
print("ready", flush=True)
while True:
    for each in priors:
        bayesmeta.save(each, sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_save_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "prior"
    seen = []
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        while not path.exists():
            time.sleep(0.001)
        time.sleep(0.01 + 0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        seen.append(bm.load(path).loc.unique().tolist())
    assert all(values in ([0.0], [1.0]) for values in seen)
    if hasattr(os, "O_TMPFILE"):
        assert [name for name in os.listdir(tmp_path) if (tmp_path / name).stat().st_size != path.stat().st_size] == []


@pytest.mark.parametrize("write", [lambda path: bm.save(linear(), path), lambda path: io.write_whole(path, b"x")])
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path, write: Any, linked: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = tmp_path / "link" if linked else pipe
    if linked:
        path.symlink_to(pipe)
    with pytest.raises(
        ValueError, match=r"cannot save to .*pipe: it is not a regular file but a pipe. Name another file"
    ):
        write(path)
    assert pipe.is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == (["link", "pipe"] if linked else ["pipe"])


def test_a_socket_is_not_replaced_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(ValueError, match="not a regular file but a socket"):
            bm.save(linear(), "s")
    assert Path("s").is_socket()
