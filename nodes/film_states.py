"""Which states of the memory a film may use again: those of the same models, encoders and beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..memory_encoder.files import named_folder
from ..memory_encoder.film.opening import Opening
from ..memory_encoder.film.sections import SectionStore
from ..memory_encoder.film.states import KeptStates, StateStore
from ..memory_encoder.memory.delta import ingredients
from ..memory_encoder.memory.memory_file import Memory
from .runtime import folders
from .runtime.managed import ManagedEncoder

KEPT_STATES = 20.0  # GB a film


def state_store(
    store: SectionStore, models: Mapping[str, str] | None, gigabytes: float, branch_film: str
) -> StateStore | None:
    """Where the states of a film lie, and those of the film it branches off; None when nothing is to be kept, or when
    it is not known which models make them."""
    if models is None or not gigabytes:
        return None
    root = folders.film_root()
    sources = [named_folder(root, branch_film, "branch_film")] if branch_film.strip() else []
    return StateStore(store.folder, gigabytes * 1e9, sources)


@dataclass(frozen=True)
class MemoryMaker:
    """What makes a film's memory: digests of what feeds the model inputs of the node, the encoders, and a store."""

    models: Mapping[str, str] | None
    encoder: ManagedEncoder
    store: StateStore | None

    def of_vae(self) -> KeptStates:
        """What the VAE alone makes of a picture."""
        return KeptStates.of(self.store, {"vae": (self.models or {}).get("vae")})

    def of_memory(self, start: Memory, opening: Opening | None, model: str = "model") -> KeptStates:
        """What is added to the memory `start`, which sees the film through the first projection of an input `model`."""
        if self.store is None or self.models is None:
            return KeptStates()
        # A small VAE comes with the encoder; films from before there was one stay what they are.
        small = [] if self.encoder.lr_vae is None else ["memory_encoder"]
        names = (model, "vae", "clip_vision", *small)
        made_of = {
            "models": {name: self.models[name] for name in names},
            "encoders": [[part.identity, str(part.dtype)] for part in self.encoder.parts],
            "memory": ingredients(start),
            "picture": None if opening is None else opening.picture,
        }
        return KeptStates.of(self.store, made_of)
