"""An ONNX graph that can be changed: nodes in order, constants, who makes and reads a value."""

import collections
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import ModelProto, NodeProto, helper, numpy_helper

Shape = tuple[int, ...]

Rewrite = str | list[NodeProto] | None
"""What becomes of a node: a value in place of its output, nodes in its place, or no change."""

Rule = Callable[["Graph", NodeProto], Rewrite]


class Graph:
    """The graph of a model. All shapes in it are static."""

    def __init__(self, model: ModelProto) -> None:
        self.model = ModelProto()
        self.model.CopyFrom(model)
        self.nodes = list(model.graph.node)
        self.inputs = {item.name for item in model.graph.input}
        self.outputs = {item.name for item in model.graph.output}
        self.constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        self._count = 1
        self.infer()

    def infer(self) -> None:
        """Work out anew who makes and reads each value, its shape and its type."""
        inferred = onnx.shape_inference.infer_shapes(
            self.finish(), data_prop=True, strict_mode=True
        ).graph
        self.shapes: dict[str, Shape] = {name: v.shape for name, v in self.constants.items()}
        self.types: dict[str, int] = {}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor = value.type.tensor_type
            self.shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
            self.types[value.name] = tensor.elem_type
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[NodeProto]] = collections.defaultdict(list)
        for node in self.nodes:
            for name in set(node.input):
                self.readers[name].append(node)

    def finish(self) -> ModelProto:
        """The model, without what no output needs."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed |= set(node.input)
        self.nodes = kept[::-1]
        self.constants = {name: v for name, v in self.constants.items() if name in needed}
        graph = self.model.graph
        for field in (graph.node, graph.initializer, graph.value_info):
            del field[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in self.constants.items())
        return self.model

    def apply(self, rule: Rule) -> None:
        """Rewrite every node by one rule."""
        nodes: list[NodeProto] = []
        names: dict[str, str] = {}
        has_changed = False
        for node in self.nodes:
            node = renamed(node, names) if names else node
            result = rule(self, node)
            has_changed |= result is not None
            if isinstance(result, str):
                names[node.output[0]] = names.get(result, result)  # the rule read an old node
            else:
                nodes += [node] if result is None else result
        if not has_changed:
            return
        self.nodes = [renamed(node, names) for node in nodes]
        for output in sorted(self.outputs & names.keys()):
            self._let_be_output(names[output], output)
        self.infer()

    def apply_to_outputs(self, rule: Rule) -> None:
        """Rewrite what makes an output that nothing else reads; its shape may change."""
        alone = {name for name in self.outputs if not self.readers[name]}
        self.reshape_by(lambda graph, node: rule(graph, node) if node.output[0] in alone else None)

    def reshape_by(self, rule: Rule) -> None:
        """Rewrite every node by one rule, which may change the shapes of outputs."""
        for item in self.model.graph.output:
            item.type.tensor_type.ClearField("shape")
        self.apply(rule)
        for item in self.model.graph.output:
            kind = item.type.tensor_type.elem_type
            item.type.CopyFrom(helper.make_tensor_type_proto(kind, self.shapes[item.name]))

    def maker(self, name: str, *kinds: str) -> NodeProto | None:
        """The node that makes a value, if it is of one of these kinds."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in kinds else None

    def is_read_once(self, name: str) -> bool:
        """Whether just one node reads a value, and it is no output."""
        return len(self.readers[name]) == 1 and name not in self.outputs

    def name(self) -> str:
        """A name that nothing has yet."""
        while (name := f"value_{self._count}") in self.shapes:
            self._count += 1
        self._count += 1
        return name

    def constant(self, value: ArrayLike) -> str:
        """The name of a new constant."""
        name = self.name()
        self.constants[name] = np.asarray(value)
        self.shapes[name] = self.constants[name].shape
        return name

    def make(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> NodeProto:
        """A node with one output, by default under a new name."""
        return helper.make_node(kind, inputs, [output or self.name()], **attributes)

    def reshape(self, source: str, shape: Shape, output: str) -> NodeProto:
        """A node that gives a value another shape."""
        return self.make("Reshape", [source, self.constant(np.asarray(shape, np.int64))], output)

    def _let_be_output(self, name: str, output: str) -> None:
        """Make a value an output, under the output's name."""
        if name in self.inputs | self.outputs | self.constants.keys():
            self.nodes.append(helper.make_node("Identity", [name], [output]))
            return
        self.nodes = [renamed(node, {name: output}) for node in self.nodes]
        for node in self.nodes:
            node.output[:] = [output if each == name else each for each in node.output]


def renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy of a node that reads other values."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    return copy


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def long_axes(shape: Shape) -> Shape:
    """The lengths of the axes that are not 1."""
    return tuple(length for length in shape if length != 1)
