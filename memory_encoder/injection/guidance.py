"""History guidance: a weight of its own on the memory (after History-Guided Video Diffusion, arXiv 2502.06764).

    D() + cfg * (D(c) - D() + w * (D(c, H) - D(c)))

c is the prompt, H the memory. Without guidance the memory stands beside both prompts. Guided, it stands beside the
positive prompt alone, so that its weight is w * cfg; at w = 1 this takes no pass more than cfg itself.
Not from the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .inject import CALC_COND_BATCH, DIFFUSION_MODEL, KEY

OPTION = "sampler_calc_cond_batch_function"
CalcCondBatch = Callable[[Any, list[Any], Tensor, Tensor, dict[str, Any]], list[Tensor]]


@dataclass(frozen=True)
class HistoryGuidance:
    """Takes the place of core's evaluation of the conds (`sampler_calc_cond_batch_function`).

    weight: w above, more than 0. calc_cond_batch: core's. earlier: the function that had the place before, which is
    then asked in core's stead.
    """

    weight: float
    calc_cond_batch: CalcCondBatch
    earlier: Callable[[dict[str, Any]], list[Tensor]] | None = None

    def __call__(self, args: dict[str, Any]) -> list[Tensor]:
        conds, blind = args["conds"], without_memory(args["model_options"])
        nothing = [None] * (len(conds) - 1)
        shown = self._evaluate(args, [conds[0], *nothing], args["model_options"])[0]
        if self.weight == 1:
            if all(cond is None for cond in conds[1:]):
                return [shown] * len(conds)
            return [shown, *self._evaluate(args, [None, *conds[1:]], blind)[1:]]
        plain = self._evaluate(args, conds, blind)  # both prompts without memory share one batch
        return [plain[0] + self.weight * (shown - plain[0]), *plain[1:]]

    def _evaluate(self, args: dict[str, Any], conds: list[Any], options: dict[str, Any]) -> list[Tensor]:
        if self.earlier is not None:
            return self.earlier({**args, "conds": conds, "model_options": options})
        return self.calc_cond_batch(args["model"], conds, args["input"], args["sigma"], options)


def without_memory(model_options: dict[str, Any]) -> dict[str, Any]:
    """A copy of a model's options in which no memory is injected."""
    options = model_options.get("transformer_options", {})
    wrappers = options.get("wrappers", {})
    kept = {
        kind: {key: value for key, value in wrappers.get(kind, {}).items() if key != KEY}
        for kind in (DIFFUSION_MODEL, CALC_COND_BATCH)
    }
    return {**model_options, "transformer_options": {**options, "wrappers": {**wrappers, **kept}}}


def guide(model: Any, weight: float, calc_cond_batch: CalcCondBatch) -> Any:
    """Sets history guidance on a ModelPatcher that `inject` returned, in place; 0 takes it away. Returns the model."""
    earlier = model.model_options.get(OPTION)
    while isinstance(earlier, HistoryGuidance):  # of an injection before this one
        earlier = earlier.earlier
    if weight:
        model.set_model_sampler_calc_cond_batch_function(HistoryGuidance(weight, calc_cond_batch, earlier))
    elif earlier is not None:
        model.set_model_sampler_calc_cond_batch_function(earlier)
    else:
        model.model_options.pop(OPTION, None)
    return model
