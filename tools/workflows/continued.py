"""Films that begin with something: a picture, a clip, a saved memory; and core's own sampler with a memory."""

from __future__ import annotations

from . import families, texts
from .families import WAN5
from .films import BROWN, GREEN, FilmParts
from .graph import Node, Workflow


def load_clip(workflow: Workflow, vae: Node) -> tuple[list[Node], Node, Node]:
    """The end of input/clip.mp4 at the film's rate and size: the nodes, its pictures and sound, and its latents."""
    add = workflow.add
    video = add("LoadVideo", "The clip", file="clip.mp4")
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
    picture = workflow.add("LoadImage", "First frame", image="start.png")
    film = parts.film(workflow.name, start_image=picture[0])
    saved = parts.save(film, workflow.name)
    report = workflow.add("PreviewAny", "What was made and reused", source=film[2])
    how = """
1. Choose the picture. It is cropped to the film's size.
2. Write the shots in **Storyboard**. The first one begins with the picture: say what happens in it.
3. Run. Wan 2.2 5B begins the first section with the picture itself; later sections see it in the memory.

A shot whose transition is *continue* begins with the last frame of the shot before in the same way.
"""
    intro = workflow.note("A film from a picture", how)
    about = workflow.note("About the memory", texts.UNTRAINED)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", parts.models_column())
    workflow.group("2  Picture, memory and sampling", [picture, *parts.encoders, parts.sampler, parts.sigmas])
    workflow.group("3  Story", [parts.storyboard, parts.negative])
    workflow.group("4  Film", [film, parts.budget], color=GREEN)
    workflow.group("5  Result", [saved, report], color=GREEN)
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
    how = """
1. Choose the clip, of any frame rate. **Clip for History** takes its last 5 seconds, brought to the model's 24 fps.
2. Write what follows in **Storyboard**; its times count from the end of the clip. The first shot goes on from the clip.
3. Run. The result holds the end of the clip with its sound and the new shots, decoded as one film.

The memory of the whole film is saved too; the workflow *continue_memory* goes on from it.
"""
    intro = workflow.note("Continue a video", how)
    about = workflow.note("About the memory", texts.UNTRAINED)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", parts.models_column())
    workflow.group("2  The clip", clip_nodes, color=GREEN)
    workflow.group("3  Memory and sampling", [*parts.encoders, parts.budget, parts.sampler, parts.sigmas])
    workflow.group("4  Story", [parts.storyboard, parts.negative])
    workflow.group("5  Film", [film, memory], color=GREEN)
    workflow.group("6  Result", [saved, report], color=GREEN)
    return workflow


def continue_memory() -> Workflow:
    """A saved memory takes the place of the film so far."""
    workflow = Workflow("continue_memory", "Continue a memory", "New shots from a memory that was saved", "memory")
    loaded = families.load_wan5(workflow)
    parts = FilmParts(workflow, WAN5, loaded, texts.CONTINUATION)
    memory = workflow.add("VideoMemoryLoad", "The memory of the film so far", memory_name="film_00001.safetensors")
    film = parts.film(workflow.name, memory=memory[0], sliding_window=3)
    saved = parts.save(film, workflow.name)
    longer = workflow.add("VideoMemorySave", "Save the longer memory", memory=film[1], filename_prefix=workflow.name)
    report = workflow.add("PreviewAny", "What was made and reused", source=film[2])
    how = """
1. Choose a memory that **Save Video Memory** wrote (`output/video_memories`). Press R if it is not in the list.
2. It must come from the same model and the same kind of encoder, and from a film of the same picture size.
3. Write what follows in **Storyboard** and run.

The saved file begins where the film before ended, so that the two can be put one after the other.
"""
    intro = workflow.note("Go on from a saved memory", how)
    about = workflow.note("About the memory", texts.UNTRAINED)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", parts.models_column())
    workflow.group("2  Memory and sampling", [memory, *parts.encoders, parts.budget, parts.sampler, parts.sigmas])
    workflow.group("3  Story", [parts.storyboard, parts.negative])
    workflow.group("4  Film", [film, longer], color=GREEN)
    workflow.group("5  Result", [saved, report], color=GREEN)
    return workflow


def another_ending() -> Workflow:
    """Cut Memory and Join Memories before the sampler."""
    workflow = Workflow(
        "another_ending", "Another ending", "Forget the last section, add the cast, go on differently", "branch"
    )
    loaded = families.load_wan5(workflow)
    parts = FilmParts(workflow, WAN5, loaded, texts.ENDING)
    add = workflow.add
    cast = add("VideoMemoryLoad", "Memory of the cast", memory_name="film_00001.safetensors")
    earlier = add("VideoMemoryLoad", "Memory of the film", memory_name="film_00001.safetensors")
    cut = add("VideoMemoryCut", "Without its last section", memory=earlier[0], section=-1)
    joined = add("VideoMemoryJoin", "The cast, then the film", memory=cast[0], memory_after=cut[0])
    holds = add("PreviewAny", "What the memory holds", size=(380, 200), source=joined[1])
    film = parts.film(workflow.name, memory=joined[0])
    saved = parts.save(film, workflow.name)
    report = add("PreviewAny", "What was made and reused", source=film[2])
    how = """
1. **Memory of the film**: what *Save Video Memory* wrote at the end of a film. **Cut Memory** forgets its last section,
   as if it had never been.
2. **Memory of the cast**: a clip that shows the people, compressed and saved once. **Join Memories** puts it before the
   film. Leave it out by connecting *Cut Memory* to the sampler.
3. Write the other ending in **Storyboard** and run.

Both memories must come from the same encoder and the same picture size.
"""
    intro = workflow.note("Another ending", how)
    about = workflow.note("About the memory", texts.UNTRAINED)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", parts.models_column())
    workflow.group("2  What is remembered", [cast, earlier, cut, joined, holds], color=GREEN)
    workflow.group("3  Memory and sampling", [*parts.encoders, parts.budget, parts.sampler, parts.sigmas])
    workflow.group("4  Story", [parts.storyboard, parts.negative])
    workflow.group("5  Film", [film], color=GREEN)
    workflow.group("6  Result", [saved, report], color=GREEN)
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
    intro = workflow.note("A memory for any sampler", how)
    about = workflow.note("About the memory", texts.UNTRAINED)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", [*loaded.nodes(), shift, encoder])
    workflow.group("2  The clip", clip_nodes, color=GREEN)
    workflow.group("3  Memory", [memory, tokens, applied], color=GREEN)
    workflow.group("4  What comes next", [positive, negative, empty, sampler, sigmas])
    workflow.group("5  Result", [sampled, joined, frames, video, saved], color=GREEN)
    return workflow


ALL = (image_to_film, continue_video, continue_memory, another_ending, any_sampler)
