"""What stands where a function or class of torchvision would be."""

from __future__ import annotations


def stand_in(name: str) -> type:
    """A class that can be imported, subclassed and named in annotations, but not called."""

    def refuse(self: object, *args: object, **kwargs: object) -> None:
        raise RuntimeError(f"{name} was called, but only a stand-in for torchvision is here: install torchvision")

    return type(name.rpartition(".")[2], (), {"__init__": refuse, "__module__": name.rpartition(".")[0]})
