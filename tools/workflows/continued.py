"""Films that begin with a picture, a clip, a saved memory or another film; and core's own sampler with a memory."""

from __future__ import annotations

from . import families, texts
from .families import WAN5
from .films import BROWN, GREEN, FilmParts
from .graph import Node, Workflow
from .tiny import SIZE, TinyFilm

CLIP = """
1. **Demo Clip** holds the place of your clip. Drop a video on the canvas, which makes a *Load Video*, and connect it in
its place. **Clip for History** takes its last 5 seconds, brought to the film's 24 fps.
"""
TINY = """
This runs at once, on any computer, with the film of *01 First film*: make that one first. In the workflow of your own
film do the same with its own loaders.
"""


def load_clip(workflow: Workflow, vae: Node) -> tuple[list[Node], Node, Node]:
    """The end of a clip at the film's rate and size: the nodes, its pictures and sound, and its latents."""
    add = workflow.add
    video = add("VideoMemoryDemoClip", "Put your clip here")
    clip = add("VideoMemoryClip", "Its end, at the film's frame rate", video=video[0], fps=WAN5.fps, seconds=5.0)
    scaled = add(
        "ImageScale",
        "At the film's size",
        image=clip[0],
        upscale_method="lanczos",
        width=WAN5.width,
        height=WAN5.height,
        crop="center",
    )
    latents = add("VAEEncode", "As latents", pixels=scaled[0], vae=vae[0])
    return [video, clip, scaled, latents], clip, latents


def image_to_film() -> Workflow:
    """A picture is the first frame of the film."""
    line = "A picture becomes the first frame, the story goes on"
    workflow = Workflow("image_to_film", "Image to film", line, "image")
    loaded = families.load_wan5(workflow)
    parts = FilmParts(workflow, WAN5, loaded, texts.FROM_PICTURE)
    picture = workflow.add("VideoMemoryDemoClip", "First frame: put your picture here")
    film = parts.film(workflow.name, start_image=picture[2])
    saved = parts.save(film, workflow.name)
    report = workflow.add("PreviewAny", "What was made and reused", source=film[2])
    how = f"""
{texts.PICTURE.strip()}
2. Write the shots in **Storyboard**. The first one begins with the picture: say what happens in it.
3. Press **Run**. The first section begins with the picture itself; later ones see it in the memory.

A shot that is set to *Go on* begins with the last frame of the shot before in the same way.
"""
    intro = workflow.note("A film from a picture", "\n\n".join((texts.UNTRAINED_FIRST, how)))
    about = workflow.note("About the memory", texts.UNTRAINED)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", parts.models_column())
    workflow.group("2  Picture, memory and sampling", [picture, *parts.encoders, parts.sampler, parts.sigmas])
    workflow.group("3  Story", [parts.storyboard, parts.negative])
    workflow.group("4  Film", [film], color=GREEN)
    workflow.group("5  Result", [report, saved], color=GREEN)
    return workflow


def continue_video() -> Workflow:
    """A clip opens the film."""
    workflow = Workflow("continue_video", "Continue a video", "Your clip opens the film, new shots follow", "video")
    loaded = families.load_wan5(workflow)
    parts = FilmParts(workflow, WAN5, loaded, texts.CONTINUATION)
    clip_nodes, clip, latents = load_clip(workflow, loaded.vae)
    film = parts.film(workflow.name, history=latents[0], sliding_window=3)
    saved = parts.save(film, workflow.name, audio=clip[1])
    memory = workflow.add(
        "VideoMemorySave", "Save the memory, to go on later", memory=film[1], filename_prefix=workflow.name
    )
    report = workflow.add("PreviewAny", "What was made and reused", source=film[2])
    how = f"""
{CLIP.strip()}
2. Write what follows in **Storyboard**; its times count from the end of the clip. The first shot goes on from the clip.
3. Press **Run**. The result holds the end of the clip with its sound and the new shots, decoded as one film.

The memory of the whole film is saved too; *Continue a memory* shows how to go on from it.
"""
    intro = workflow.note("Continue a video", "\n\n".join((texts.UNTRAINED_FIRST, how)))
    about = workflow.note("About the memory", texts.UNTRAINED)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", parts.models_column())
    workflow.group("2  The clip", clip_nodes, color=GREEN)
    workflow.group("3  Memory and sampling", [*parts.encoders, parts.sampler, parts.sigmas])
    workflow.group("4  Story", [parts.storyboard, parts.negative])
    workflow.group("5  Film", [film, memory], color=GREEN)
    workflow.group("6  Result", [report, saved], color=GREEN)
    return workflow


def continue_memory() -> Workflow:
    """A saved memory takes the place of the film so far: cut, and joined with what a clip shows."""
    workflow = Workflow("continue_memory", "Continue a memory", "New shots from a memory that was saved", "memory")
    add = workflow.add
    parts = TinyFilm(workflow, ("Max waves in the kitchen, close-up", "Mira talks in the garden, close-up"))
    saved = add("VideoMemoryLoad", "Memory of the first film", memory_name="first_film_00001.safetensors")
    cut = add("VideoMemoryCut", "Without its last section", memory=saved[0], section=-1)
    clip = add("VideoMemoryDemoClip", "Who comes in: Max")
    scaled = add("ImageScale", "At the film's size", image=clip[1], upscale_method="area", **SIZE, crop="center")
    latents = add("VAEEncode", "As latents", pixels=scaled[0], vae=parts.models[2])
    cast = add(
        "VideoMemoryCompress", "Into memory", memory_encoder=parts.models[1], model=parts.shift[0],
        vae=parts.models[2], latent=latents[0],
    )  # fmt: skip
    joined = add("VideoMemoryJoin", "Max, then the film", memory=cast[0], memory_after=cut[0])
    film = parts.film(workflow.name, memory=joined[0])
    result = parts.save(film, workflow.name)
    longer = add("VideoMemorySave", "Save the longer memory", memory=film[1], filename_prefix=workflow.name)
    how = """
1. **Load Video Memory** reads what *Save Video Memory* wrote at the end of a film. A film of the same model, the same
kind of memory and the same picture size can go on from it, also without the film itself.
2. **Cut Memory** forgets the last section, as if it had never been. **Join Memories** puts before the film what a clip
shows, here Max. Leave out what you do not need: connect **Load Video Memory** to the sampler.
3. Write what follows in **Storyboard** and press **Run**. The new film begins where the memory ends.

A film that is still on disk has a simpler way to another end: *Another ending*.
"""
    intro = workflow.note("Go on from a saved memory", "\n\n".join((TINY, how)))
    workflow.group("Read me", [intro], color=BROWN)
    workflow.group("1  Models", parts.column())
    workflow.group("2  What is remembered", [saved, cut], [clip, scaled, latents, cast, joined], color=GREEN)
    workflow.group("3  Write", [parts.storyboard])
    workflow.group("4  Make", [film, longer], color=GREEN)
    workflow.group("5  Watch", [result], color=GREEN)
    return workflow


def another_ending() -> Workflow:
    """A branch of a film on disk."""
    line = "Keep the beginning of a film, tell its end differently"
    workflow = Workflow("another_ending", "Another ending", line, "branch")
    parts = TinyFilm(workflow, ("Leo talks in the garden, close-up", "Mira waves on the street, close-up"))
    film = parts.film(workflow.name, branch_film="first_film", branch_section=2)
    result = parts.save(film, workflow.name)
    how = """
1. `branch_film` of the sampler names the film that you have made, `branch_section` how many of its sections stay: they
are taken from its folder and not made again. The old film is not touched.
2. `film` is the name of the new one.
3. Write in **Storyboard** what happens from there, and press **Run**. The new film is whole: the sections that stay,
and the new ones.

Model, memory, picture size and frame rate must be those of the old film. Both inputs stand below *Show advanced
inputs*; *Continue from here* in the strip of a film is another way: it makes the rest anew in the film itself.
"""
    intro = workflow.note("Another ending", "\n\n".join((TINY, how)))
    workflow.group("Start here", [intro, *parts.column()], color=BROWN)
    workflow.group("1  Write", [parts.storyboard])
    workflow.group("2  Make", [film], color=GREEN)
    workflow.group("3  Watch", [result], color=GREEN)
    return workflow


def any_sampler() -> Workflow:
    """Compress History and Apply Video Memory around core's SamplerCustom."""
    workflow = Workflow("any_sampler", "Any sampler", "A memory for ComfyUI's own samplers", "sampler")
    loaded = families.load_wan5(workflow)
    add, clip = workflow.add, loaded.clip
    assert clip is not None
    shift = add("ModelSamplingSD3", "Shift of the noise schedule", model=loaded.unet[0], shift=WAN5.shift)
    encoder = add("VideoMemoryEncoderNew", "New Memory Encoder (untrained)", model=shift[0])
    clip_nodes, _, latents = load_clip(workflow, loaded.vae)
    memory = add(
        "VideoMemoryCompress", "Into memory", memory_encoder=encoder[0], model=shift[0], vae=loaded.vae[0],
        latent=latents[0],
    )  # fmt: skip
    tokens = add("PreviewAny", "Tokens of the memory", size=(320, 120), source=memory[1])
    size = add("GetImageSize", "Size of the clip", image=clip_nodes[2][0])
    budget = add(
        "VideoMemoryBudget", "What this takes", memory_encoder=encoder[0], width=size[0], height=size[1], fps=WAN5.fps,
        history_seconds=5.0, section_seconds=5.0,
    )  # fmt: skip
    applied = add(
        "VideoMemoryApply", "The model sees the memory", size=(360, 200), model=shift[0], memory=memory[0],
        sliding_window=3,
    )  # fmt: skip
    positive = add("CLIPTextEncode", "What comes next", clip=clip[0], text=texts.CONTINUATION[0])
    negative = add("CLIPTextEncode", "Negative prompt", clip=clip[0], text=families.NEGATIVE)
    empty = add(
        "Wan22ImageToVideoLatent", "5 seconds more", vae=loaded.vae[0], width=WAN5.width, height=WAN5.height,
        length=117, batch_size=1,
    )  # fmt: skip
    sampler = add("KSamplerSelect", "Sampler", sampler_name=WAN5.sampler)
    sigmas = add("BasicScheduler", "Sigmas", model=shift[0], scheduler="simple", steps=WAN5.steps, denoise=1.0)
    sampled = add(
        "SamplerCustom", "ComfyUI's own sampler", model=applied[0], positive=positive[0], negative=negative[0],
        sampler=sampler[0], sigmas=sigmas[0], latent_image=empty[0], add_noise=True, noise_seed=7, cfg=WAN5.cfg,
    )  # fmt: skip
    joined = add("LatentConcat", "Clip and continuation", samples1=latents[0], samples2=sampled[0], dim="t")
    frames = add("VAEDecode", "Decode both as one", samples=joined[0], vae=loaded.vae[0])
    video = add("CreateVideo", "Video", images=frames[0], fps=WAN5.fps)
    saved = add("SaveVideo", "Save", video=video[0], filename_prefix=f"video/{workflow.name}")
    how = """
**Compress History** turns a clip into a memory, **Apply Video Memory** lets the model see it, and any sampler of
ComfyUI then makes what comes next. The new latents lie directly after the clip.

Decode clip and continuation together: decoded alone, the first new latent would come out as one frame instead of four.

The **Autoregressive Sampler** does all this for every section by itself; take this way for your own sampling graphs.
"""
    intro = workflow.note("A memory for any sampler", "\n\n".join((texts.UNTRAINED_ALONE, CLIP, how)))
    about = workflow.note("About the memory", texts.UNTRAINED)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", [*loaded.nodes(), shift, encoder])
    workflow.group("2  The clip", clip_nodes, color=GREEN)
    workflow.group("3  Memory", [memory, tokens, applied], [size, budget], color=GREEN)
    workflow.group("4  What comes next", [positive, negative, empty, sampler, sigmas])
    workflow.group("5  Result", [sampled, joined, frames, video, saved], color=GREEN)
    return workflow


ALL = (image_to_film, continue_video, continue_memory, another_ending, any_sampler)
