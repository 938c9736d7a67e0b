"""History guidance: a weight of its own on the memory (after History-Guided Video Diffusion, arXiv 2502.06764).

    D() + cfg * (D(c) - D() + w * (D(c, H) - D(c)))

c is the prompt, H the memory. Without guidance the memory stands beside both prompts. Guided, it stands beside the
positive prompt alone, so that its weight is w * cfg; at w = 1 this takes no pass more than cfg itself.
Not from the paper.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid5

from torch import Tensor

from .inject import CALC_COND_BATCH, DIFFUSION_MODEL, KEY, ON_CLEANUP

log = logging.getLogger(__name__)

OPTION = "sampler_calc_cond_batch_function"
GUIDANCE = "video_memory_guidance"
CalcCondBatch = Callable[[Any, list[Any], Tensor, Tensor, dict[str, Any]], list[Tensor]]

UNHEARD = (
    "history_guidance has no effect here: a node behind it or the guider (SkipLayerGuidanceDiTSimple, DualCFGGuider, "
    "PerpNegGuider) evaluates the prompts in its stead; put Apply Video Memory behind such a node, sample with "
    "CFGGuider or KSampler, or set history_guidance to 0"
)
APART = (
    "history_guidance evaluates the positive prompt apart from the negative one: what works on both in one batch, such "
    "as core's Normalized Attention Guidance, does nothing to it; set history_guidance to 0 for that"
)


@dataclass
class Run:
    """Whether guidance was asked, in this run of a sampler."""

    asked: bool = False

    def end(self, *_: Any) -> None:
        """A callback at the end of a run (CallbacksMP.ON_CLEANUP)."""
        self.asked = False

    def check(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Wraps core's evaluation of the conds (WrappersMP.CALC_COND_BATCH); raises ValueError where guidance is not
        asked first. Others may evaluate more after it, as skip layer guidance does."""
        if not self.asked:
            raise ValueError(UNHEARD)
        return executor(*args, **kwargs)


@dataclass(frozen=True)
class HistoryGuidance:
    """Takes the place of core's evaluation of the conds (`sampler_calc_cond_batch_function`).

    weight: w above, more than 0. calc_cond_batch: core's. earlier: the function that had the place before, which is
    then asked in core's stead. run: what is to know that it was asked.
    """

    weight: float
    calc_cond_batch: CalcCondBatch
    earlier: Callable[[dict[str, Any]], list[Tensor]] | None = None
    run: Run = field(default_factory=Run)

    def __call__(self, args: dict[str, Any]) -> list[Tensor]:
        if not self.run.asked:
            warn_of_apart(args["model_options"])
        self.run.asked = True
        conds, blind = args["conds"], without_memory(args["model_options"])
        nothing = [None] * (len(conds) - 1)
        shown = self._evaluate(args, [conds[0], *nothing], args["model_options"])[0]
        if self.weight == 1:
            if all(cond is None for cond in conds[1:]):
                return [shown] * len(conds)
            return [shown, *self._evaluate(args, [None, *conds[1:]], blind)[1:]]
        plain = self._evaluate(
            args, [renamed(conds[0]), *conds[1:]], blind
        )  # both prompts without memory share one batch
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


def renamed(cond: Any) -> Any:
    """A cond under uuids of its own, the same in every step: by them others know again what they evaluate (EasyCache),
    and would take one pass of a step for the other."""
    return None if cond is None else [{**part, "uuid": uuid5(part["uuid"], GUIDANCE)} for part in cond]


def warn_of_apart(model_options: dict[str, Any]) -> None:
    """Logs a warning where a patch of attention's output may want both prompts in one batch."""
    if model_options.get("transformer_options", {}).get("patches", {}).get("attn1_output_patch"):
        log.warning(APART)


def guide(model: Any, weight: float, calc_cond_batch: CalcCondBatch) -> Any:
    """Sets history guidance on a ModelPatcher that `inject` returned, in place; 0 takes it away. Returns the model."""
    earlier = model.model_options.get(OPTION)
    while isinstance(earlier, HistoryGuidance):  # of an injection before this one
        earlier = earlier.earlier
    model.remove_wrappers_with_key(CALC_COND_BATCH, GUIDANCE)
    model.remove_callbacks_with_key(ON_CLEANUP, GUIDANCE)
    if weight:
        guidance = HistoryGuidance(weight, calc_cond_batch, earlier)
        model.set_model_sampler_calc_cond_batch_function(guidance)
        model.add_wrapper_with_key(CALC_COND_BATCH, GUIDANCE, guidance.run.check)
        model.add_callback_with_key(ON_CLEANUP, GUIDANCE, guidance.run.end)
    elif earlier is not None:
        model.set_model_sampler_calc_cond_batch_function(earlier)
    else:
        model.model_options.pop(OPTION, None)
    return model
