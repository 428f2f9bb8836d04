"""What a network does, step by step, as a graph: traced by torch.fx through its `forward`, down to torch's own layers.

Classes and names say little about what a network computes: it may pool or multiply by a function in `forward`, use a
layer twice, or have one under two names. Who has to know (path counts, DeepLIFT) reads the graph, and refuses steps
that he does not understand.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from analysis.command_line import InputError
from trainables.models.blocks import Subsample
from trainables.models.pooling import TopGapPooling

NONLINEAR_LAYERS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
)
"""Element-wise nonlinearities."""
NONLINEAR_FUNCTIONS = (
    *(F.relu, F.relu_, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.softplus),
    *(F.tanh, F.sigmoid, torch.relu, torch.relu_, torch.tanh, torch.sigmoid),
)
NONLINEAR_METHODS = ("relu", "relu_", "tanh", "tanh_", "sigmoid", "sigmoid_")

_OWN_LAYERS = (Subsample, TopGapPooling)


@dataclass(frozen=True)
class Step:
    """One step of a network: `node` of its graph, with what it gives for the images that were traced."""

    node: fx.Node
    layer: nn.Module | None
    """The network's own layer, if the step is one."""
    shape: tuple[int, ...] | None
    """Of the tensor that it gives; None if it gives something else."""
    depends: bool
    """Whether on the images."""
    place: str
    """The layer that it is or is in, for messages: "layer 3 is a Softmax"."""

    @property
    def called(self) -> str:
        """The function that it calls; nothing where it is a layer."""
        return "" if self.layer is not None else str(getattr(self.node.target, "__name__", self.node.target))

    depending: frozenset[fx.Node] = frozenset()
    """Of the steps whose results it is given, those that depend on the images."""

    def refused(self, why: str, allowed: str) -> InputError:
        """What to raise of a step that is not understood: `why` is what is said of its layer, after "which"."""
        calls = f", as it calls {self.called}" if self.called else ""
        return InputError(f"model: {self.place}, {why}{calls}; allowed are {allowed}")


@dataclass(frozen=True)
class Traced:
    """A network's steps in order; the last one's result is `output`."""

    steps: dict[fx.Node, Step]
    graph: fx.Graph
    output: fx.Node
    root: nn.Module
    """What the graph's names are of."""

    def attribute(self, node: fx.Node) -> Any:
        """A parameter or buffer that a step reads."""
        return _attribute(self.root, str(node.target))


class _Shaped(fx.Proxy):
    """What stands for a tensor in a trace; its shape is known, so that code may depend on it."""

    @property
    def _value(self) -> Any:
        return self.tracer.values[self.node]  # type: ignore[attr-defined]

    @property
    def shape(self) -> torch.Size:
        shape: torch.Size = self._value.shape
        return shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dim(self) -> int:
        return self.ndim

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return len(self._value)


class _Tracer(fx.Tracer):
    """Traces a network without numbers, on images of a shape."""

    proxy_buffer_attributes = True

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.values: dict[fx.Node, Any] = {}
        self.places: dict[fx.Node, str] = {}
        self.computing = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # torch's own layers, and those derived from one that do not compute otherwise
        if isinstance(m, _OWN_LAYERS) or super().is_leaf_module(m, module_qualified_name):
            return True
        inherited = type(m).forward.__module__.startswith("torch.nn.modules.")
        return inherited and not isinstance(m, nn.Sequential) and not any(m.children())

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # a layer that is made in `forward` is none of the network's: its functions are traced
        if self.computing or m not in (self.submodule_paths or {}):
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Shaped(node, self)

    def create_proxy(self, *args: Any, **kwargs: Any) -> Any:
        proxy = super().create_proxy(*args, **kwargs)
        stack = list(self.module_stack.values())
        name, kind = stack[-1] if stack else ("", type(self.root))
        self.places[proxy.node] = f"{_inner(name)} is a {getattr(kind, '__name__', kind)}"
        with self._computed():
            self.values[proxy.node] = self._value_of(proxy.node)
        return proxy

    @contextmanager
    def _computed(self) -> Iterator[None]:
        self.computing = True
        try:
            yield
        finally:
            self.computing = False

    def _value_of(self, node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda used: self.values[used])
        target: Any = node.target
        with torch.no_grad():
            if node.op == "placeholder":
                return self.images
            if node.op == "get_attr":
                return _attribute(self.root, target)
            if node.op == "call_module":
                return self.root.get_submodule(target)(*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            return target(*args, **kwargs)


def _attribute(root: Any, name: str) -> Any:
    for part in name.split("."):
        root = getattr(root, part)
    return root


def _inner(name: str) -> str:
    """A layer's name in the network, which is the only layer of what is traced."""
    return f"layer {name.partition('.')[2]}" if "." in name else "itself"


@dataclass(frozen=True)
class _Recorded:
    """A trace, without the network that it is of."""

    graph: fx.Graph
    shapes: dict[fx.Node, tuple[int, ...] | None]
    places: dict[fx.Node, str]


_KNOWN: WeakKeyDictionary[nn.Module, tuple[Any, dict[tuple[int, ...], _Recorded]]] = WeakKeyDictionary()
"""Traces of networks as long as these live and are built as they were, by the shape of the images."""


def _built(model: nn.Module) -> tuple[Any, ...]:
    """What the course of `forward` may depend on: the layers, and their attributes that are no tensors."""
    plain = (bool, int, float, str, tuple, type(None))
    return tuple(
        (id(module), *((name, value) for name, value in vars(module).items() if isinstance(value, plain)))
        for module in model.modules()
    )


def trace(model: nn.Module, shape: Sequence[int], purpose: str) -> Traced:
    """The steps of a network in evaluation mode for images of a shape (B, C, H, W); its layers are the network's own.

    Raises `InputError` that names `purpose` for a network whose `forward` cannot be followed: one whose course depends
    on the images' values, that returns more than logits, or computes with numbers that it makes on the way.
    """
    built, key = _built(model), tuple(shape)
    known = _KNOWN.get(model)
    if known is None or known[0] != built:
        known = _KNOWN[model] = built, {}
    if key not in known[1]:
        known[1][key] = _record(model, key, purpose)
    recorded = known[1][key]
    root = nn.Sequential(model)
    steps: dict[fx.Node, Step] = {}
    for node in recorded.graph.nodes:
        if node.op == "output":
            (output,) = node.args
            if not isinstance(output, fx.Node) or steps[output].shape is None:
                raise InputError(f"model: {type(model).__name__} returns no tensor of logits, which {purpose} needs")
            return Traced(steps, recorded.graph, output, root)
        layer = root.get_submodule(str(node.target)) if node.op == "call_module" else None
        place = recorded.places[node]
        if layer is not None:
            place = f"{_inner(str(node.target))} is a {type(layer).__name__}"
        if node.op == "get_attr" and not _has(root, str(node.target)):
            raise InputError(f"model: {place}, which computes with numbers that it makes in forward")
        depending = frozenset(used for used in node.all_input_nodes if steps[used].depends)
        depends = node.op == "placeholder" or bool(depending)
        steps[node] = Step(node, layer, recorded.shapes[node], depends, place, depending)
    raise AssertionError("a graph without output")


def _record(model: nn.Module, shape: tuple[int, ...], purpose: str) -> _Recorded:
    dtype = next((values.dtype for values in model.parameters() if values.is_floating_point()), torch.float32)
    tracer = _Tracer(torch.empty(shape, dtype=dtype, device="meta"))
    try:
        graph = tracer.trace(nn.Sequential(copy.deepcopy(model)).to("meta").eval())
    except Exception as error:  # noqa: BLE001 - whatever foreign code does with what stands for a tensor
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model: {type(model).__name__} cannot be traced, which {purpose} needs ({reason})") from None
    shapes = {node: tuple(value.shape) if isinstance(value, Tensor) else None for node, value in tracer.values.items()}
    return _Recorded(graph, shapes, tracer.places)


def _has(root: nn.Module, name: str) -> bool:
    try:
        _attribute(root, name)
    except AttributeError:
        return False
    return True
