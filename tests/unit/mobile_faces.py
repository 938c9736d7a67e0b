"""A small face embedder for tests, from a TensorFlow.js graph and its weights on disk: the few operations it has."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class MobileFace:
    """[112,112,3] uint8 RGB to a vector [256]."""

    def __init__(self, graph: Path) -> None:
        content = json.loads(graph.read_text())
        self.nodes: list[dict[str, Any]] = content["modelTopology"]["node"]
        self.weights: dict[str, Tensor] = {}
        raw, at = graph.with_suffix(".bin").read_bytes(), 0
        for entry in content["weightsManifest"][0]["weights"]:
            kind = {"float32": np.float32, "int32": np.int32}[entry["dtype"]]
            count = math.prod(entry["shape"])
            numbers = np.frombuffer(raw, kind, count, at).reshape(entry["shape"])
            self.weights[entry["name"]] = torch.from_numpy(numbers.copy())
            at += 4 * count

    @torch.no_grad()
    def __call__(self, face: np.ndarray) -> np.ndarray:
        values = dict(self.weights)
        values["data"] = torch.from_numpy(np.ascontiguousarray(face)).float()[None]
        result = values["data"]
        for node in self.nodes:
            if node["op"] in ("Const", "Placeholder"):
                continue
            result = values[node["name"]] = self._apply(node, *(values[name] for name in node["input"]))
        return result[0].numpy()

    def _apply(self, node: dict[str, Any], first: Tensor, second: Tensor) -> Tensor:
        simple = {
            "AddV2": torch.add, "Mul": torch.mul, "Sub": torch.sub, "Maximum": torch.maximum, "Minimum": torch.minimum,
            "MatMul": torch.matmul,
        }  # fmt: skip
        op = node["op"]
        if op in simple:
            return simple[op](first, second)
        if op == "Reshape":
            return first.reshape([int(n) for n in second])
        if op == "Pad":
            return F.pad(first, [int(n) for pair in reversed(second.tolist()) for n in pair])
        stride = int(node["attr"]["strides"]["list"]["i"][1])
        groups = first.shape[3] if op == "DepthwiseConv2dNative" else 1
        kernel = second.permute(2, 3, 0, 1) if groups > 1 else second.permute(3, 2, 0, 1)
        return F.conv2d(first.movedim(3, 1), kernel, stride=stride, groups=groups).movedim(1, 3)
