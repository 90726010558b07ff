"""A GPU that is pretended: tensors on the CPU that say they are elsewhere, and refuse to be mixed with others.

It finds constants, masks and generators that were made on the CPU where they should have followed a prior or its rows,
without a GPU: `benchmarks.device_check` asks the same of a real one. Whether kernels of a GPU are right it cannot say.

Tensors are told by their storage, so views and parameters of one are where it is.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["GPU", "pretended_gpu"]

GPU = torch.device("cuda:0")
PACKAGES = ("bayesmeta", "bandits", "bo", "benchmarks", "tests")
# these take indices from the CPU, or move what they are given
TAKE_INDICES = {Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put_, Tensor.index_put}
MOVE = {Tensor.copy_, Tensor.to, Tensor.cpu, Tensor.type_as}
LEAVE = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__}


_GENERATOR = Generator
_there: dict[int, Generator] = {}  # generators that say they are on the GPU; alive, so that no other gets their id


class _Either(type(Generator)):  # type: ignore[misc]
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _GENERATOR)

    def __call__(cls, device: Any = "cpu") -> Generator:
        made = _GENERATOR()
        if torch.device(device).type == GPU.type:
            _there[id(made)] = made
        return made


class EitherGenerator(Generator, metaclass=_Either):
    """What takes the place of `torch.Generator`, which has no device but those that are."""


class _Pretence(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, Any] = {}  # alive as long as the pretence, so that no other gets their address

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.device, torch._C._nn._parse_to):
            return func(*args, **kwargs)
        given = list(_tensors([args, kwargs]))
        there = [self.is_there(tensor) for tensor in given]
        if func == Tensor.device.__get__:
            return GPU if there[0] else func(*args)
        if func in (Tensor.is_cuda.__get__, Tensor.is_cpu.__get__):
            return there[0] == (func == Tensor.is_cuda.__get__)
        self._refuse_mixed(func, given, there)
        self._refuse_generator(args, kwargs, there)
        goes, args, kwargs = self._destination(func, args, kwargs, there)
        if func is Tensor.cpu and any(there):
            return args[0].clone()
        result = func(*args, **kwargs)
        if func is Tensor.numpy and any(there):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self._moved(result, goes, given) if func not in LEAVE else result

    def is_there(self, tensor: Tensor) -> bool:
        return not tensor.is_sparse and tensor.untyped_storage()._cdata in self.storages

    def _refuse_mixed(self, func: Any, given: list[Tensor], there: list[bool]) -> None:
        if func in MOVE or not any(there):
            return
        for number, (tensor, is_there) in enumerate(zip(given, there, strict=True)):
            is_index = func in TAKE_INDICES and number and there[0] and not tensor.is_floating_point()
            if not is_there and tensor.ndim and not is_index:
                raise RuntimeError(f"Expected all tensors to be on the same device, in {func.__name__}")

    def _refuse_generator(self, args: Any, kwargs: Any, there: list[bool]) -> None:
        generators = [each for each in (*args, *kwargs.values()) if isinstance(each, Generator)]
        wanted = any(there) or (kwargs.get("device") is not None and torch.device(kwargs["device"]).type == GPU.type)
        if wanted and any(id(each) not in _there for each in generators):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")

    def _destination(self, func: Any, args: Any, kwargs: Any, there: list[bool]) -> tuple[bool, Any, Any]:
        """Whether the result is on the GPU, and arguments that say nothing of it."""
        goes = any(there) if func is not Tensor.copy_ else there[0]
        if func in (Tensor.to, Tensor.type_as):
            goes = there[0] if len(there) == 1 else there[1]
        positional = []
        for each in args:
            if isinstance(each, torch.device) or (func is Tensor.to and isinstance(each, str)):
                goes = torch.device(each).type == GPU.type
                each = torch.device("cpu") if goes else each
            positional.append(each)
        if kwargs.get("device") is not None:
            goes = torch.device(kwargs["device"]).type == GPU.type
            kwargs |= {"device": "cpu"} if goes else {}
        return goes, positional, kwargs

    def _moved(self, result: Any, goes: bool, given: list[Tensor]) -> Any:
        """The result, marked where it goes; a copy where its storage is that of a tensor that stays."""
        if isinstance(result, Tensor):
            if result.is_sparse or self.is_there(result) == goes:
                return result
            shared = any(result.untyped_storage()._cdata == each.untyped_storage()._cdata for each in given)
            result = result.clone() if shared else result
            if goes:
                storage = result.untyped_storage()
                self.storages[storage._cdata] = storage
            return result
        for each in _tensors(result):
            if goes and not self.is_there(each):
                storage = each.untyped_storage()
                self.storages[storage._cdata] = storage
        return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Within, `.to(GPU)` and `device=GPU` give tensors that say they are there."""
    changed = []
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in PACKAGES and getattr(module, "Generator", None) is Generator and name != __name__:
            changed.append(module)
            module.Generator = EitherGenerator  # type: ignore[attr-defined]
    original, torch.Generator = torch.Generator, EitherGenerator  # type: ignore[misc, assignment]
    try:
        with _Pretence():
            yield GPU
    finally:
        torch.Generator = original  # type: ignore[misc]
        for module in changed:
            module.Generator = original  # type: ignore[attr-defined]
