"""Identity of the models behind a node, from the API prompt."""

from __future__ import annotations

from typing import Any

import torch

from memory_encoder.film.identity import conditioning, has_objects, upstream


def chain(length: int, name: str = "a.safetensors", shift: int = 0) -> dict[str, Any]:
    """A loader, then LoRA nodes that pass on both of its outputs, then a sampler."""
    prompt: dict[str, Any] = {str(shift): {"class_type": "Loader", "inputs": {"name": name}}}
    for i in range(1, length + 1):
        before = str(shift + i - 1)
        prompt[str(shift + i)] = {
            "class_type": "Lora",
            "inputs": {"model": [before, 0], "clip": [before, 1], "strength": 0.5},
        }
    prompt["sampler"] = {"class_type": "Sampler", "inputs": {"model": [str(shift + length), 0], "seed": 1}}
    return prompt


def identify(prompt: dict[str, Any], stamps: dict[str, Any] | None = None) -> Any:
    return upstream(prompt, "sampler", ("model",), (stamps or {}).get)


def test_what_feeds_the_node_counts_and_node_numbers_do_not():
    assert identify(chain(3)) == identify(chain(3, shift=40))
    assert identify(chain(3)) != identify(chain(4))
    assert identify(chain(3)) != identify(chain(3, "b.safetensors"))
    other = chain(3)
    other["sampler"]["inputs"]["seed"] = 2  # the node's own widgets are not upstream
    assert identify(other) == identify(chain(3))


def test_nodes_of_a_subgraph_are_found_by_their_numbers_of_several_parts():
    inside = {
        "12:3": {"class_type": "Loader", "inputs": {"name": "a.safetensors"}},
        "12:5": {"class_type": "Sampler", "inputs": {"model": ["12:3", 0]}},
    }
    flat = {"1": inside["12:3"], "2": {"class_type": "Sampler", "inputs": {"model": ["1", 0]}}}
    found = upstream(inside, "12:5", ("model",), lambda name: None)
    assert found is not None and found == upstream(flat, "2", ("model",), lambda name: None)


def test_file_that_changed_under_the_same_name_counts():
    assert identify(chain(2), {"a.safetensors": [1, 2]}) != identify(chain(2), {"a.safetensors": [1, 3]})


def test_long_chains_with_several_links_each_are_walked_once():
    assert identify(chain(150)) is not None  # two links a node: 2**150 paths


def test_missing_prompt_and_loops_do_no_harm():
    assert upstream(None, "1", ("model",), lambda name: None) is None
    assert upstream({}, "1", ("model",), lambda name: None) is None
    loop = {
        "sampler": {"class_type": "S", "inputs": {"model": ["x", 0]}},
        "x": {"class_type": "X", "inputs": {"m": ["x", 0]}},
    }
    assert identify(loop) is not None


def test_conditioning_counts_by_content_and_other_objects_by_type():
    given = [[torch.ones(1, 2), {"pooled_output": None, "strength": 1.0, "hook": object()}]]
    assert conditioning(given)[0][1] == {"hook": "object", "pooled_output": None, "strength": 1.0}
    assert conditioning(given)[0][0] is given[0][0]


# Graphs that grow while they run


class Handed:
    """An object that a node was handed instead of a link."""


def grown(name: str = "a.safetensors") -> tuple[dict[str, Any], dict[str, str]]:
    """A loop node that was expanded to a sampler, and who made whom."""
    prompt = {
        "1": {"class_type": "Loader", "inputs": {"name": name}},
        "2": {"class_type": "Loop", "inputs": {"model": ["1", 0], "count": 3}},
        "2.0.0.1": {"class_type": "Lora", "inputs": {"model": ["1", 0], "strength": 0.5}},
        "2.0.0.2": {"class_type": "Sampler", "inputs": {"model": ["2.0.0.1", 0], "vae": Handed()}},
    }
    return prompt, {"2.0.0.1": "2", "2.0.0.2": "2"}


def identify_grown(name: str = "a.safetensors", parents: bool = True, node: str = "2.0.0.2") -> Any:
    prompt, made_by = grown(name)
    return upstream(prompt, node, ("model", "vae"), lambda text: None, made_by.get if parents else lambda one: None)


def test_what_feeds_a_node_that_an_expansion_made_counts_through_links_and_through_objects():
    first, other = identify_grown(), identify_grown("b.safetensors")
    assert first == identify_grown() and first is not None and other is not None
    assert first["model"] != other["model"] and first["vae"] != other["vae"]


def test_an_object_of_unknown_origin_and_an_unknown_node_have_no_identity():
    assert identify_grown(parents=False) is None
    assert identify_grown(node="9.9.9") is None


def test_what_an_object_in_conditioning_holds_is_known_to_be_unknown():
    plain = [[torch.ones(1, 2), {"pooled_output": None, "strength": 1.0, "area": (1, 2.0, "x")}]]
    assert not has_objects(plain)
    for thing in (object(), {1}, lambda: None, torch.nn.Identity()):
        assert has_objects([[torch.ones(1, 2), {"control": thing}]])
        assert has_objects([plain, [[torch.ones(1, 2), {"deep": {"er": (1, [thing])}}]]])
