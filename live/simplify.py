"""The same ONNX graph with fewer nodes: on tiny tensors a node costs more than its arithmetic.

What is done changes numbers by rounding at most. Axes of length 1 come and go once instead of
around every scalar, a reduction over one element is none, what is added to a matrix product is its
bias, and rows are gathered, in half the time of a slice. All of it together takes the graph of
`decide` from 200 nodes to 100.
"""

import math

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from jaxtrade.live.graph import Graph, Rewrite, Rule, attributes, long_axes, renamed

UNARY = {"Abs", "Asinh", "Cast", "Cos", "Exp", "Log", "Neg", "Not", "Relu", "Sigmoid", "Sign"}
UNARY |= {"Sin", "Sqrt", "Tanh"}
BINARY = {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
BINARY |= {"Max", "Min", "Mul", "Or", "Pow", "Sub"}
ELEMENTWISE = UNARY | BINARY | {"Clip", "Where"}
RESHAPES = {"Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
OF_ONE = {"ReduceL1": "Abs", "ReduceL2": "Abs"} | dict.fromkeys(
    ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"), "Identity"
)
"""What these do to one element."""

BOOL = TensorProto.BOOL

FEW_ROWS = 64
"""Up to here a Gather, which copies row by row, is the faster."""


def simplify(model: ModelProto) -> ModelProto:
    """A model with the same inputs and numbers; outputs may gain or lose axes of length 1."""
    graph = Graph(model)
    settle(graph)
    graph.apply_to_outputs(unshaped)
    graph.apply(gathered)
    return graph.finish()


def settle(graph: Graph, more: tuple[Rule, ...] = ()) -> None:
    """Apply all rules, and some more, until nothing changes."""
    before = None
    while before != (before := [node.SerializeToString() for node in graph.nodes]):
        for rule in (*RULES, *more):
            graph.apply(rule)
        merge_equal(graph)


def reshaped(graph: Graph, node: NodeProto) -> Rewrite:
    """What only adds or drops axes of length 1 is a Reshape; two in a row are one, or nothing."""
    source, target = node.input[0], graph.shapes[node.output[0]]
    shape = graph.shapes[source]
    if node.op_type not in RESHAPES or math.prod(shape) != math.prod(target):
        return None
    if node.op_type == "Transpose":
        order = [axis for axis in attributes(node)["perm"] if shape[axis] != 1]
        if order != sorted(order):
            return None
    before = graph.maker(source, "Reshape")
    if before is not None:
        source = before.input[0]
    if graph.shapes[source] == target:
        return source
    is_done = node.op_type == "Reshape" and source == node.input[0]
    return None if is_done else [graph.reshape(source, target, node.output[0])]


def widened(graph: Graph, node: NodeProto) -> Rewrite:
    """Axes put before what was computed with a constant are put before the constant."""
    before = graph.maker(node.input[0], *ELEMENTWISE) if node.op_type == "Reshape" else None
    if before is None or not graph.is_read_once(node.input[0]):
        return None
    target = graph.shapes[node.output[0]]
    for number, name in enumerate(before.input):
        shape = graph.shapes[name]
        front = len(target) - len(shape)
        if max(len(graph.shapes[each]) for each in before.input if each) > len(target):
            return None
        if name in graph.constants and shape and target == (1,) * front + shape:
            wider = renamed(before, {})
            wider.input[number] = graph.constant(graph.constants[name].reshape(target))
            wider.output[0] = node.output[0]
            return [wider]
    return None


def sunk(graph: Graph, node: NodeProto) -> Rewrite:
    """Elementwise work comes before a Reshape where it gives the same."""
    if node.op_type not in ELEMENTWISE:
        return None
    sources = {}
    for name in node.input:
        before = graph.maker(name, "Reshape")
        if before is not None and (graph.is_read_once(name) or not graph.shapes[name]):
            sources[name] = before.input[0]
    early = renamed(node, sources)
    target = graph.shapes[node.output[0]]
    shapes = [graph.shapes[name] for name in early.input if name]
    if not sources or not all(long_axes(each) in ((), long_axes(target)) for each in shapes):
        return None
    shape = np.broadcast_shapes(*shapes)
    if long_axes(shape) != long_axes(target):
        return None
    if shape == target:
        return [early]
    early.output[0] = graph.name()
    return [early, graph.reshape(early.output[0], target, node.output[0])]


def reduced(graph: Graph, node: NodeProto) -> Rewrite:
    """A reduction over one element is none; else axes are dropped later, if it may save that."""
    if not node.op_type.startswith(("Reduce", "Arg")):
        return None
    source, output, known = node.input[0], node.output[0], attributes(node)
    shape, target = graph.shapes[source], graph.shapes[output]
    if math.prod(shape) == math.prod(target) and node.op_type in OF_ONE:
        one = graph.make(OF_ONE[node.op_type], [source])
        return [one, graph.reshape(one.output[0], target, output)]
    axes = known.get("axis", range(len(shape)))
    if len(node.input) > 1:
        axes = graph.constants.get(node.input[1])
    if axes is None or known.get("keepdims", 1):
        return None
    dropped = np.mod(np.ravel(axes), len(shape))
    kept = tuple(1 if axis in dropped else length for axis, length in enumerate(shape))
    readers = [] if output in graph.outputs else graph.readers[output]
    back = [r for r in readers if r.op_type == "Reshape" and graph.shapes[r.output[0]] == kept]
    if target and (not back or len(back) < len(readers)):
        return None
    keeping = graph.make(node.op_type, list(node.input), **{**known, "keepdims": 1})
    return [keeping, graph.reshape(keeping.output[0], target, output)]


def uncast(graph: Graph, node: NodeProto) -> Rewrite:
    """Truth values as numbers, 0 and 1, need not become truth values again on their way."""
    before = graph.maker(node.input[0], "Cast") if node.op_type == "Cast" else None
    if before is None:
        return None
    source = before.input[0]
    if BOOL == graph.types.get(source) == graph.types[node.output[0]]:
        return source
    over = graph.maker(source, "ReduceMin", "ReduceMax")
    first = graph.maker(over.input[0], "Cast") if over is not None else None
    is_truth = first is not None and graph.types.get(first.input[0]) == BOOL
    if is_truth and graph.types[before.output[0]] == BOOL:
        return [renamed(node, {node.input[0]: source})]
    return None


def biased(graph: Graph, node: NodeProto) -> Rewrite:
    """What is added to a matrix product is its bias."""
    if node.op_type != "Add":
        return None
    for name, other in (tuple(node.input), tuple(node.input)[::-1]):
        product, shape = graph.maker(name, "Gemm", "MatMul"), graph.shapes[name]
        if product is None or not graph.is_read_once(name) or len(shape) != 2:
            continue
        known = attributes(product)
        has_bias = len(product.input) > 2
        bias = graph.constants.get(product.input[2]) if has_bias else np.zeros(1)
        if bias is None or bias.any() or np.broadcast_shapes(shape, graph.shapes[other]) != shape:
            continue
        if known.get("alpha", 1) != 1:
            continue
        kept = {key: value for key, value in known.items() if key.startswith("trans")}
        return [graph.make("Gemm", [*product.input[:2], other], node.output[0], **kept)]
    return None


def scaled(graph: Graph, node: NodeProto) -> Rewrite:
    """A factor for each column of what a matrix multiplies is in the matrix."""
    if node.op_type != "Gemm" or attributes(node).keys() & {"transA", "transB"}:
        return None
    before, matrix = graph.maker(node.input[0], "Mul"), graph.constants.get(node.input[1])
    if before is None or matrix is None or not graph.is_read_once(node.input[0]):
        return None
    for name, factor in (tuple(before.input), tuple(before.input)[::-1]):
        rows = graph.constants.get(factor)
        if rows is None or math.prod(rows.shape[:-1]) != 1:
            continue
        if graph.shapes[name] == graph.shapes[node.input[0]]:
            by_row = np.broadcast_to(rows.ravel(), len(matrix))[:, None]
            inputs = [name, graph.constant(by_row * matrix), *node.input[2:]]
            return [graph.make("Gemm", inputs, node.output[0], **attributes(node))]
    return None


def extreme(graph: Graph, node: NodeProto) -> Rewrite:
    """The least of the least, or the greatest of the greatest, is one of them all."""
    if node.op_type not in ("Max", "Min"):
        return None
    for number, name in enumerate(node.input):
        before = graph.maker(name, node.op_type)
        if before is not None and graph.is_read_once(name):
            parts = [*node.input[:number], *before.input, *node.input[number + 1 :]]
            return [graph.make(node.op_type, parts, node.output[0])]
    return None


def joined(graph: Graph, node: NodeProto) -> Rewrite:
    """A Concat takes the parts of those it joins, and neighbouring slices as one."""
    if node.op_type != "Concat":
        return None
    axis, parts = attributes(node)["axis"], list(node.input)
    for number, name in enumerate(parts):
        inner = graph.maker(name, "Concat")
        if inner is not None and attributes(inner)["axis"] == axis:
            parts[number : number + 1] = inner.input
            return [graph.make("Concat", parts, node.output[0], axis=axis)]
        here = cut(graph, graph.makers.get(name))
        before = cut(graph, graph.makers.get(parts[number - 1])) if number else None
        if here and before and here[:3] == (before[0], axis, before[3]) and before[1] == axis:
            both = cutting(graph, (*before[:3], here[3]))
            parts[number - 1 : number + 1] = both.output
            return [both, graph.make("Concat", parts, node.output[0], axis=axis)]
    return parts[0] if len(parts) == 1 else None


def sliced(graph: Graph, node: NodeProto) -> Rewrite:
    """A Slice of a Slice is one, and a Slice of all is nothing."""
    here = cut(graph, node)
    if here is None:
        return None
    source, axis, first, end = here
    if (first, end) == (0, graph.shapes[source][axis]):
        return source
    inner = cut(graph, graph.makers.get(source))
    if inner is None or inner[1] != axis:
        return None
    return [cutting(graph, (*inner[:2], inner[2] + first, inner[2] + end), node.output[0])]


def unshaped(graph: Graph, node: NodeProto) -> Rewrite:
    """An output does without its Reshape."""
    return node.input[0] if node.op_type == "Reshape" else None


def gathered(graph: Graph, node: NodeProto) -> Rewrite:
    """A Slice of a few rows is a Gather."""
    here = cut(graph, node)
    if here is None or here[3] - here[2] > FEW_ROWS:
        return None
    index = graph.constant(np.arange(here[2], here[3]))
    return [graph.make("Gather", [here[0], index], node.output[0], axis=here[1])]


Cut = tuple[str, int, int, int]
"""Source, axis, first and end of a Slice along one axis in steps of one."""


def cut(graph: Graph, node: NodeProto | None) -> Cut | None:
    """What a node cuts, if it is such a Slice, or a Gather of neighbours."""
    if node is None or node.op_type not in ("Slice", "Gather"):
        return None
    shape = graph.shapes[node.input[0]]
    if node.op_type == "Gather":
        rows, axis = graph.constants.get(node.input[1]), attributes(node).get("axis", 0)
        if rows is None or rows.ndim != 1 or not len(rows) or rows[0] < 0:
            return None
        first, end = int(rows[0]), int(rows[0]) + len(rows)
        are_neighbours = np.array_equal(rows, np.arange(first, end))
        return (node.input[0], axis % len(shape), first, end) if are_neighbours else None
    starts, ends, axes, *steps = (graph.constants[name] for name in node.input[1:])
    found = [(node.input[0], 0, 0, shape[0])]
    for start, end, axis in zip(starts, ends, np.mod(axes, len(shape)), strict=True):
        first, last, _ = slice(int(start), int(end)).indices(shape[axis])
        if (first, last) != (0, shape[axis]):
            found.append((node.input[0], int(axis), first, last))
    is_plain = len(found) <= 2 and np.all(np.asarray(steps) == 1)
    return found[-1] if is_plain else None


def cutting(graph: Graph, what: Cut, output: str = "") -> NodeProto:
    """The Slice that makes a cut."""
    source, axis, first, end = what
    numbers = [graph.constant(np.asarray([n], np.int64)) for n in (first, end, axis)]
    return graph.make("Slice", [source, *numbers], output)


def merge_equal(graph: Graph) -> None:
    """Constants and nodes that are there twice are there once."""
    seen: dict[object, str] = {}
    names: dict[str, str] = {}
    for name, value in graph.constants.items():
        names[name] = seen.setdefault((value.dtype.str, value.shape, value.tobytes()), name)
    graph.nodes = [renamed(node, names) for node in graph.nodes]

    def merged(graph: Graph, node: NodeProto) -> Rewrite:
        known = sorted(item.SerializeToString() for item in node.attribute)
        key = (node.op_type, *node.input, *known)
        if len(node.output) > 1 or node.output[0] in graph.outputs:
            return None
        first = seen.setdefault(key, node.output[0])
        return None if first == node.output[0] else first

    graph.apply(merged)


RULES: tuple[Rule, ...] = (
    reshaped,
    widened,
    reduced,
    uncast,
    sunk,
    biased,
    scaled,
    extreme,
    joined,
    sliced,
)
