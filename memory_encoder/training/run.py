"""One training run from its parts, for the node and for the command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..injection.hosts.base import host_blocks
from ..injection.hosts.comfy_models import has_accelerator
from ..phi.encoder import MemoryEncoder
from ..phi.trained_on import TrainedOn
from .card_advice import describe_plan
from .card_plan import MemoryPlan, Sharing, card_bytes, fit_to_card, plan_memory
from .dataset.mixture import Data
from .distributed.meeting import least
from .distributed.shards import is_main
from .draws import random_state_kept
from .listener import PictureListener
from .lora import add_lora, load_lora_state, remove_lora
from .module import TrainingModule
from .options import HostDefaults, TrainOptions
from .presets import as_begun
from .ram_plan import machine_ram
from .reconstruction import check_teacher, reconstruct
from .run_files import HELD_OUT, MOST_TRAINED, TRAINED, begun_with, names_in_line, write_lists
from .source import DatasetBatches
from .streaming import streamed_blocks
from .trainer import Trainer

UNTRAINED = (
    "the encoder has not been trained: stage continuation usually begins with the encoder of stage retrieval and a "
    "new LoRA; an untrained one learns to keep frames from the next section alone"
)


def train(
    diffusion_model: nn.Module,
    encoder: MemoryEncoder,
    dataset: Data,
    options: TrainOptions,
    folder: Path,
    listener: PictureListener,
    host_metadata: dict[str, str] | None = None,
    cpu: bool = False,
    lora: Mapping[str, Tensor] | None = None,
    card_gib: float | None = None,
    others: Sequence[MemoryEncoder] = (),
    defaults: HostDefaults | None = None,
    teacher: MemoryEncoder | None = None,
    given: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Trains and returns the losses; files are left in `folder`, and a run begun there is gone on with.

    card_gib: memory of the card that the batches are cut for, by default that of the card itself.
    others: further encoders of the same history, which share the host's LoRA (paper section 4.5).
    defaults: what automatic options become, unless the folder's run has begun with something else.
    teacher: a trained encoder of a finer rate, whose tokens new ones first learn to give (`options.reconstruction`).
    given: names of the options that were asked for beside a preset, see `as_begun`.
    lora: what the host's LoRA begins with, of the same rank; by default a new one. The host's weights must be ordinary
    tensors (no inference mode) on the device of training. A LoRA is taken out again at the end, also after an error,
    and the global random states are then what they were.
    Raises ValueError for a dataset or a LoRA that does not fit, and for encoders that do not fit each other.
    """
    begun = begun_with(folder)
    options = as_begun(options.going_on(begun), begun, given)
    automatic = options.section == 0
    options = options.resolved(defaults or HostDefaults(), dataset.fps, dataset.space.temporal, dataset.longest)
    if options.stage != "retrieval" and dataset.longest <= options.section:
        raise ValueError(
            f"clips of {dataset.longest} latents have no history before a section of {options.section}; use longer"
        )
    if teacher is not None:
        check_teacher(teacher.config, [encoder.config, *(other.config for other in others)])
    source = DatasetBatches(dataset, encoder.config, options, [other.config for other in others])
    if not source.has_heldout:
        options = replace(options, heldout_every=0)
    with random_state_kept(next(diffusion_model.parameters()).device):  # some encoders have no weights
        if not options.train_host:
            add_lora(diffusion_model, options.rank, options.seed)
        try:
            if lora is not None and not options.train_host:
                load_lora_state(diffusion_model, lora)
            checkpointing = options.gradient_checkpointing
            module = TrainingModule(
                encoder, diffusion_model, "zero", checkpointing, others, options.guidance, options.offload_inputs
            )
            limits = card_bytes(card_gib, cpu), machine_ram()
            card, ram = least(limits, Sharing.of_this_run().processes, cpu or not has_accelerator())
            shapes = source.splits["train"].shapes

            def planned(asked: TrainOptions) -> MemoryPlan:
                asked = replace(asked, reconstruction=0) if begun else asked  # it was before the first step
                plans = [plan_memory(module, asked, shape, teacher) for shape in shapes]
                return max(plans, key=lambda plan: plan.need(1))

            if automatic:
                options = with_room(options, card, planned)
            plan = planned(options)
            options = split_as_begun(options, begun, plan, card, ram)
            source.options = options
            trained_on = what_is_trained(dataset, options)
            plan_text = describe_plan(plan, options, len(source.splits["train"]), card, ram)
            said, lists = [plan_text, trained_on.describe_plan(), held_out(dataset)], clip_lists(dataset)
            if options.stage == "continuation" and not begun and any(e.untrained for e in (encoder, *others)):
                said.append(UNTRAINED)
            if is_main():
                if not (folder / HELD_OUT).exists():  # else of a run that may be another's, as the trainer will see
                    write_lists(folder, lists)
                listener.plan("\n".join(said))
            for block in host_blocks(diffusion_model) if options.compile_blocks else ():
                block.compile()
            with streamed_blocks(diffusion_model, options.resident_blocks):
                trainer = Trainer(module, source, options, folder, listener, cpu, host_metadata)
                if options.reconstruction and options.train_encoder and options.stage != "host":
                    seen = [other.config for other in (*others, *([teacher] if teacher else []))]
                    clips = DatasetBatches(dataset, encoder.config, options, seen)
                    trainer.beginning = partial(reconstruct, source=clips, options=options, teacher=teacher)
                trainer.trained_on = None if options.stage == "host" else trained_on
                trainer.lists, trainer.sampling_shift = lists, (defaults or HostDefaults()).shift
                losses = trainer.run(last_picture=True)
                trainer.ema.assign()
            return losses
        finally:
            remove_lora(diffusion_model)


def what_is_trained(dataset: Data, options: TrainOptions) -> TrainedOn:
    """What the encoders of a run will have been trained on, for their files and for the plan."""
    train = dataset.split("train")
    space, (_, _, height, width) = dataset.space, train.largest
    section = 0 if options.stage == "retrieval" else options.section
    shortest = min(section, 1) if options.shorter_share else section
    seconds = space.temporal / dataset.fps
    return TrainedOn(
        stage=options.stage,
        history_seconds=(train.longest - shortest) * seconds,
        section_seconds=section * seconds,
        fps=dataset.fps,
        window=options.window if section and options.window_share else 0,
        shift=options.shift,
        min_t=options.min_t,
        max_t=options.max_t,
        width=width * space.spatial,
        height=height * space.spatial,
        clips=train.clips,
    )


def clip_lists(dataset: Data) -> dict[str, Sequence[str]]:
    """Names of the clips that are held out and, unless they are very many, of the others, by the file that has them."""
    train = dataset.split("train")
    return {HELD_OUT: dataset.split("heldout").sources, TRAINED: train.sources if train.clips <= MOST_TRAINED else ()}


def held_out(dataset: Data) -> str:
    """Which clips are held out, in a line."""
    names, others = dataset.split("heldout").sources, dataset.split("train").clips
    if not names:
        return "no clip is held out, so that nothing is measured on clips that were not trained on"
    return f"held out: {len(names)} of {len(names) + others} clips: {names_in_line(names)} (all in {HELD_OUT})"


def with_room(options: TrainOptions, card: float | None, plan: Callable[[TrainOptions], MemoryPlan]) -> TrainOptions:
    """The longest section up to that of the options with which one clip fits on a card of `card` bytes, at least 1."""
    if card is None or options.stage == "retrieval":
        return options
    while options.section > 1 and not plan(options).clips_that_fit(card):
        options = replace(options, section=options.section * 3 // 4)
    return options


def split_as_begun(
    options: TrainOptions, begun: Mapping[str, Any], plan: MemoryPlan, card: float | None, ram: float | None = None
) -> TrainOptions:
    """The options with updates in steps that fit card and RAM: in those of the run in the folder where they do.

    Which clips are drawn together depends on them. begun: the options of that run, empty where there is none. Steps are
    never larger than asked for, since a person may know better than the plan what fits.
    """
    split = {name: begun[name] for name in ("batch_size", "accumulate") if name in begun}
    same = replace(options, **split)
    fits = same.batch_size % plan.sharing.processes == 0 and fit_to_card(same, plan, card, ram) == same
    whole = same.batch_size * same.accumulate == options.batch_size * options.accumulate
    return same if whole and fits and same.batch_size <= options.batch_size else fit_to_card(options, plan, card, ram)
