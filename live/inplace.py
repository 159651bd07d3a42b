"""The graph that decides, made for buffers that lie side by side in memory.

What is told, what is carried and what is decided are blocks of memory. So a part of an input, or an
input in another shape, need not be computed: it is an input of its own, `limits[3:5]`, bound to
that part of the block; and what only puts an output together is left out, for outputs such as
`next_indicators[0:7]`. Which limits bind is put together outside as well, from the truth values
`kept`. Everything told is finite here: `Buffers` refuses what is not.

That takes a quarter of its nodes from a decision, for a graph that only `Buffers` can run. The
other one stays the bundle's own, for whoever runs it otherwise.
"""

import math

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from jaxtrade.live.buffers import KEPT, PART
from jaxtrade.live.graph import Graph, Rewrite, Shape, attributes, renamed
from jaxtrade.live.simplify import (
    BOOL,
    ELEMENTWISE,
    cut,
    cutting,
    gathered,
    settle,
    unshaped,
)


def in_place(model: ModelProto) -> ModelProto:
    """A model whose inputs and outputs may be parts of what those of another one are."""
    graph = Graph(model)
    settle(graph, (placed, rowed, flattened, along, counted, opposite, standard, folded))
    graph.apply_to_outputs(unshaped)
    uncounted(graph)
    unpacked(graph)
    taken_apart(graph)
    unasked(graph)
    graph.reshape_by(loosened)
    graph.apply(gathered)
    small = graph.finish()
    read = {name for node in graph.nodes for name in node.input}
    for item in [item for item in small.graph.input if item.name not in read]:
        small.graph.input.remove(item)
    return small


def placed(graph: Graph, node: NodeProto) -> Rewrite:
    """A part of an input, or an input in another shape, is an input."""
    source, target = node.input[0] if node.input else "", graph.shapes[node.output[0]]
    if source not in graph.inputs:
        return None
    shape, first = graph.shapes[source], 0
    if node.op_type != "Reshape":
        here = cut(graph, node)
        if here is None or math.prod(shape[: here[1]]) != 1:
            return None
        first = here[2] * math.prod(shape[here[1] + 1 :])
    known = PART.fullmatch(source)
    name, start = (known[1], int(known[2])) if known else (source, 0)
    return _part(graph, name, start + first, target)


def _part(graph: Graph, name: str, first: int, shape: Shape) -> str:
    """An input for the numbers of another one from `first` on, in this shape."""
    wanted = f"{name}[{first}:{first + math.prod(shape)}]"
    while wanted in graph.inputs and graph.shapes[wanted] != shape:
        wanted += "'"
    if wanted not in graph.inputs:
        item = helper.make_tensor_value_info(wanted, TensorProto.FLOAT, shape)
        graph.model.graph.input.append(item)
        graph.inputs.add(wanted)
        graph.shapes[wanted] = shape
    return wanted


def flattened(graph: Graph, node: NodeProto) -> Rewrite:
    """What is put together and then read as one long row, or by nothing, is put together as one."""
    if node.op_type != "Concat" or attributes(node)["axis"] != 0:
        return None
    output = node.output[0]
    shape, readers = graph.shapes[output], graph.readers[output]
    flat = (1, math.prod(shape))
    if len(shape) != 2 or shape == flat or not (readers or output in graph.outputs):
        return None
    if any(each.op_type != "Reshape" or graph.shapes[each.output[0]] != flat for each in readers):
        return None
    sizes = [(1, math.prod(graph.shapes[name])) for name in node.input]
    rows = [graph.reshape(n, s, graph.name()) for n, s in zip(node.input, sizes, strict=True)]
    row = graph.make("Concat", [each.output[0] for each in rows], axis=1)
    return [*rows, row, graph.reshape(row.output[0], shape, output)]


def rowed(graph: Graph, node: NodeProto) -> Rewrite:
    """A matrix times a column is a row times its transpose, which takes half as long."""
    if node.op_type not in ("MatMul", "Gemm") or attributes(node).keys() - {"alpha", "beta"}:
        return None
    matrix, column, *bias = node.input
    shape = graph.shapes[column]
    if matrix not in graph.constants or len(shape) != 2 or shape[1] != 1 or shape[0] == 1:
        return None
    target = graph.shapes[node.output[0]]
    if bias and graph.shapes[bias[0]] != target:
        return None
    row = graph.reshape(column, (1, shape[0]), graph.name())
    nodes, inputs = [row], [row.output[0], matrix]
    for name in bias:
        nodes.append(graph.reshape(name, (1, target[0]), graph.name()))
        inputs.append(nodes[-1].output[0])
    product = graph.make("Gemm", inputs, transB=1)
    return [*nodes, product, graph.reshape(product.output[0], target, node.output[0])]


def along(graph: Graph, node: NodeProto) -> Rewrite:
    """What is cut or reduced of a column is that of the row which it is made of."""
    is_cut = node.op_type in ("Slice", "Gather")
    if not is_cut and not node.op_type.startswith("Reduce"):
        return None
    before = graph.maker(node.input[0], "Reshape")
    if before is None:
        return None
    column, row = graph.shapes[node.input[0]], graph.shapes[before.input[0]]
    if len(column) != 2 or column[1] != 1 or row != (1, column[0]):
        return None
    target = graph.shapes[node.output[0]]
    if is_cut:
        here = cut(graph, node)
        if here is None or here[1] != 0:
            return None
        again = cutting(graph, (before.input[0], 1, *here[2:]))
        return [again, graph.reshape(again.output[0], target, node.output[0])]
    axes = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
    if axes is None or axes.tolist() != [0] or target != (1, 1):
        return None
    other = graph.constant(np.asarray([1], np.int64))
    return [graph.make(node.op_type, [before.input[0], other], node.output[0], keepdims=1)]


def folded(graph: Graph, node: NodeProto) -> Rewrite:
    """The scale of account features is in the matrix that they are multiplied with."""
    if node.op_type != "Gemm" or attributes(node).keys() - {"alpha", "beta"}:
        return None
    scaled = graph.maker(node.input[0], "Mul")
    turned = graph.maker(node.input[1], "Transpose")
    matrix = graph.constants.get(turned.input[0]) if turned is not None else None
    factors = graph.constants.get(scaled.input[1]) if scaled is not None else None
    if scaled is None or matrix is None or factors is None or matrix.ndim != 2:
        return None
    shape = graph.shapes[node.input[0]]
    source = raised(graph, scaled.input[0], shape)
    if not source or factors.shape != shape or not graph.is_read_once(node.input[0]):
        return None
    product = graph.constant((matrix * factors).astype(np.float32))
    inputs = [source[-1].output[0], product, *node.input[2:]]
    return [*source, graph.make("Gemm", inputs, node.output[0], transB=1)]


def raised(graph: Graph, name: str, shape: Shape) -> list[NodeProto]:
    """What makes a value in another shape, from an input in that shape and constants alone; none
    where it is made of more.
    """
    nodes: list[NodeProto] = []
    while name not in graph.inputs:
        node = graph.maker(name, "Max", "Min")
        if node is None or len(node.input) != 2 or not graph.is_read_once(name):
            return []
        (name, limit), again = node.input, renamed(node, {})
        if limit not in graph.constants or graph.constants[limit].size != math.prod(shape):
            return []
        again.input[1] = graph.constant(graph.constants[limit].reshape(shape))
        again.output[0] = graph.name()
        if nodes:
            nodes[0].input[0] = again.output[0]
        nodes.insert(0, again)
    if nodes:
        nodes[0].input[0] = _part(graph, name, 0, shape)
    return nodes


def loosened(graph: Graph, node: NodeProto) -> Rewrite:
    """A single number needs no other shape where all that it goes into is elementwise."""
    if node.op_type != "Reshape" or math.prod(graph.shapes[node.output[0]]) != 1:
        return None
    found, names = set(), [node.output[0]]
    while names:
        for reader in graph.readers[names.pop()]:
            if reader.op_type not in ELEMENTWISE:
                return None
            if any(math.prod(graph.shapes[name]) != 1 for name in reader.input if name):
                return None
            names += [name for name in reader.output if name not in found]
            found |= set(reader.output)
    return node.input[0]


def counted(graph: Graph, node: NodeProto) -> Rewrite:
    """The least of truth values is at once that of the kind of numbers that is wanted."""
    over = graph.maker(node.input[0], "ReduceMin", "ReduceMax") if node.op_type == "Cast" else None
    first = graph.maker(over.input[0], "Cast") if over is not None else None
    kind = attributes(node).get("to")
    if over is None or first is None or graph.types.get(first.input[0]) != BOOL or kind == BOOL:
        return None
    if attributes(first)["to"] == kind:
        return over.output[0]
    cast = graph.make("Cast", [first.input[0]], to=kind)
    again = renamed(over, {over.input[0]: cast.output[0]})
    again.output[0] = node.output[0]
    return [cast, again]


def opposite(graph: Graph, node: NodeProto) -> Rewrite:
    """An input that is not greater is less or equal, as all inputs are numbers."""
    before = graph.maker(node.input[0], "Greater") if node.op_type == "Not" else None
    if before is None or before.input[0] not in graph.inputs:
        return None
    return [graph.make("LessOrEqual", list(before.input), node.output[0])]


def standard(graph: Graph, node: NodeProto) -> Rewrite:
    """A number that is stretched and moved, and then standardised, is standardised otherwise."""
    minus = graph.maker(node.input[0], "Sub") if node.op_type == "Mul" else None
    parts = graph.maker(minus.input[0], "Concat") if minus is not None else None
    if minus is None or parts is None or not graph.is_read_once(parts.output[0]):
        return None
    mean, scale = (graph.constants.get(each.input[1]) for each in (minus, node))
    shape = graph.shapes[parts.output[0]]
    if mean is None or scale is None or not mean.shape == scale.shape == shape:
        return None
    start = 0
    for name in parts.input:
        end = start + graph.shapes[name][-1]
        found = _stretched(graph, name)
        if found and graph.is_read_once(minus.output[0]):
            source, factor, offset = found
            means, scales = mean.astype(np.float64), scale.astype(np.float64)
            means[..., start:end] = (means[..., start:end] - offset) / factor
            scales[..., start:end] *= factor
            row = renamed(parts, {name: source})
            row.output[0] = graph.name()
            moved = graph.make("Sub", [row.output[0], graph.constant(means.astype(np.float32))])
            factors = graph.constant(scales.astype(np.float32))
            return [row, moved, graph.make("Mul", [moved.output[0], factors], node.output[0])]
        start = end
    return None


def _stretched(graph: Graph, name: str) -> tuple[str, float, float] | None:
    """Source, factor and offset of a value that is source times factor plus offset, if it is."""
    plus = graph.maker(name, "Add")
    if plus is None or not graph.is_read_once(name):
        return None
    for offset, product in (tuple(plus.input), tuple(plus.input)[::-1]):
        times = graph.maker(product, "Mul")
        added = graph.constants.get(offset)
        if times is None or added is None or added.size != 1 or not graph.is_read_once(product):
            continue
        for factor, source in (tuple(times.input), tuple(times.input)[::-1]):
            by = graph.constants.get(factor)
            if by is not None and by.size == 1 and graph.shapes[source] == graph.shapes[name]:
                return source, float(by.item()), float(added.item())
    return None


def uncounted(graph: Graph) -> None:
    """The index of an action stays the kind of number that it is found as."""
    for item in graph.model.graph.output:
        cast = graph.maker("action", "Cast") if item.name == "action" else None
        if cast is not None and graph.types[cast.input[0]] == TensorProto.INT64:
            item.type.tensor_type.elem_type = TensorProto.INT64
            graph.apply(_plain_action)


def _plain_action(graph: Graph, node: NodeProto) -> Rewrite:
    return node.input[0] if node.op_type == "Cast" and node.output[0] == "action" else None


def unpacked(graph: Graph) -> None:
    """The bits that bind are outputs as truth values: whether each limit is kept."""
    total = graph.maker("binding", "ReduceSum")
    product = graph.maker(total.input[0], "Mul") if total is not None else None
    cast = graph.maker(product.input[0], "Cast") if product is not None else None
    negated = graph.maker(cast.input[0], "Not") if cast is not None else None
    bits = graph.constants.get(product.input[1]) if product is not None else None
    if negated is None or bits is None or bits.tolist() != [1 << n for n in range(bits.size)]:
        return
    kept = negated.input[0]
    _exchange(graph, "binding", [(f"{KEPT}[0:{bits.size}]", kept)])


def unasked(graph: Graph) -> None:
    """Whether what is requested is finite is not asked here: `OnnxPolicy` sees it, and where it is
    not runs the bundle's own graph.
    """
    outputs = graph.model.graph.output
    first = [item for item in outputs if item.name == f"{KEPT}[0:1]"]
    choices = [node for node in graph.nodes if node.op_type == "Where"]
    asked = [node for node in choices if first and node.input[0] == first[0].name]
    if len(asked) == 1 and len(graph.readers[first[0].name]) == 1 and _is_finite(graph, asked[0]):
        outputs.remove(first[0])
        graph.outputs.discard(first[0].name)
        graph.apply(lambda _, node: node.input[1] if node == asked[0] else None)


def _is_finite(graph: Graph, choice: NodeProto) -> bool:
    """Whether a choice takes what is requested where all of it is finite."""
    less = graph.maker(choice.input[0], "Less")
    size = graph.maker(less.input[0], "Abs") if less is not None else None
    return size is not None and size.input[0] == choice.input[1] == "requested"


def taken_apart(graph: Graph) -> None:
    """What only puts an output together is left out: its parts are outputs."""
    for output in sorted(graph.outputs):
        node = graph.maker(output, "Concat")
        if node is None or graph.readers[output]:
            continue
        if math.prod(graph.shapes[output][: attributes(node)["axis"]]) != 1:
            continue
        known, parts, start = PART.fullmatch(output), [], 0
        for name in _grouped(graph, node):
            size = math.prod(graph.shapes[name])
            parts.append((f"{known[1] if known else output}[{start}:{start + size}]", name))
            start += size
        _exchange(graph, output, parts)


def _grouped(graph: Graph, node: NodeProto) -> list[str]:
    """The parts of a Concat, those of which there is another Concat in one."""
    parts = list(node.input)
    for other in graph.nodes:
        inner = list(other.input)
        if other.op_type != "Concat" or other.output[0] == node.output[0]:
            continue
        if attributes(other)["axis"] != attributes(node)["axis"]:
            continue
        for first in range(len(parts) - len(inner) + 1):
            if parts[first : first + len(inner)] == inner:
                parts[first : first + len(inner)] = [other.output[0]]
                break
    return parts


def _exchange(graph: Graph, output: str, values: list[tuple[str, str]]) -> None:
    """Put other values, under these names, in the place of an output."""
    outputs = graph.model.graph.output
    outputs.remove(next(item for item in outputs if item.name == output))
    graph.outputs.discard(output)
    for name, value in values:
        kind = graph.types.get(value, TensorProto.FLOAT)
        outputs.append(helper.make_tensor_value_info(name, kind, graph.shapes[value]))
        graph.nodes.append(helper.make_node("Identity", [value], [name]))
        graph.outputs.add(name)
    graph.apply(_renamed_outputs)


def _renamed_outputs(graph: Graph, node: NodeProto) -> Rewrite:
    """An output that is another value under a new name is that value, where it may be."""
    is_plain = node.op_type == "Identity" and node.output[0] in graph.outputs
    if not is_plain or node.input[0] in graph.inputs | graph.outputs | graph.constants.keys():
        return None
    return node.input[0]
