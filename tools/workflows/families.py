"""The published model files, and the nodes that load them."""

from __future__ import annotations

from dataclasses import dataclass

from .graph import ModelFile, Node, Workflow

WAN22 = "https://huggingface.co/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
WAN21 = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
HUNYUAN = "https://huggingface.co/Comfy-Org/HunyuanVideo_repackaged/resolve/main/split_files"
CLIP_L = "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/clip_l.safetensors"
NEGATIVE = "blurry, overexposed, low quality, still picture, subtitles, watermark, deformed hands, extra fingers"


def _at(base: str, directory: str, name: str) -> ModelFile:
    return ModelFile(name, f"{base}/{directory}/{name}", directory)


UMT5 = _at(WAN21, "text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors")
WAN_5B = _at(WAN22, "diffusion_models", "wan2.2_ti2v_5B_fp16.safetensors")
WAN_5B_VAE = _at(WAN22, "vae", "wan2.2_vae.safetensors")
WAN_14B_HIGH = _at(WAN22, "diffusion_models", "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors")
WAN_14B_LOW = _at(WAN22, "diffusion_models", "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors")
WAN_14B_I2V_HIGH = _at(WAN22, "diffusion_models", "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors")
WAN_14B_I2V_LOW = _at(WAN22, "diffusion_models", "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors")
WAN_14B_VAE = _at(WAN22, "vae", "wan_2.1_vae.safetensors")
HUNYUAN_T2V = _at(HUNYUAN, "diffusion_models", "hunyuan_video_t2v_720p_bf16.safetensors")
HUNYUAN_VAE = _at(HUNYUAN, "vae", "hunyuan_video_vae_bf16.safetensors")
LLAVA = _at(HUNYUAN, "text_encoders", "llava_llama3_fp8_scaled.safetensors")
CLIP_L_FILE = ModelFile("clip_l.safetensors", CLIP_L, "text_encoders")
SIGLIP = "https://huggingface.co/Comfy-Org/sigclip_vision_384/resolve/main/sigclip_vision_patch14_384.safetensors"
SIGLIP_FILE = ModelFile("sigclip_vision_patch14_384.safetensors", SIGLIP, "clip_vision")
QWEN35 = "https://huggingface.co/Comfy-Org/Qwen3.5/resolve/main"
QWEN35_4B = _at(QWEN35, "text_encoders", "qwen3.5_4b_bf16.safetensors")


@dataclass(frozen=True)
class Family:
    """What a film of one model family takes."""

    name: str
    width: int
    height: int
    fps: float
    section_seconds: float
    shift: float
    cfg: float
    sampler: str
    steps: int
    bytes_per_weight: float


WAN5 = Family("Wan 2.2 5B", 1280, 704, 24.0, 5.0, 8.0, 5.0, "uni_pc", 20, 1.0)
WAN14 = Family("Wan 2.2 14B", 832, 480, 16.0, 5.0, 8.0, 3.5, "euler", 20, 1.0)
STORYMEM = Family("StoryMem", 832, 480, 16.0, 5.0, 4.0, 3.5, "uni_pc", 40, 1.0)
HUNYUAN_VIDEO = Family("HunyuanVideo", 832, 480, 24.0, 3.0, 7.0, 1.0, "euler", 20, 1.0)


# Shift, steps and sampler of its authors, for pictures from 832x480 on.
FRAMEPACK = Family("FramePack-F1", 832, 480, 30.0, 1.2, 7.0, 1.0, "uni_pc", 25, 1.0)


@dataclass(frozen=True)
class Loaded:
    """The loaders of a family."""

    unet: Node
    clip: Node | None
    vae: Node
    low_noise: Node | None = None

    def nodes(self) -> list[Node]:
        return [node for node in (self.unet, self.low_noise, self.clip, self.vae) if node is not None]


def load_unet(workflow: Workflow, file: ModelFile, title: str, dtype: str = "default") -> Node:
    return workflow.add("UNETLoader", title, models=[file], size=(400, 110), unet_name=file.name, weight_dtype=dtype)


def load_vae(workflow: Workflow, file: ModelFile) -> Node:
    return workflow.add("VAELoader", "VAE", models=[file], size=(400, 80), vae_name=file.name)


def load_umt5(workflow: Workflow) -> Node:
    return workflow.add(
        "CLIPLoader", "Text encoder", models=[UMT5], size=(400, 140), clip_name=UMT5.name, type="wan", device="default"
    )


def load_wan5(workflow: Workflow, with_text: bool = True) -> Loaded:
    """Wan 2.2 TI2V 5B; its weights are kept in fp8."""
    unet = load_unet(workflow, WAN_5B, "Wan 2.2 5B, fp8", "fp8_e4m3fn")
    vae = load_vae(workflow, WAN_5B_VAE)
    return Loaded(unet, load_umt5(workflow) if with_text else None, vae)


def load_wan14(workflow: Workflow) -> Loaded:
    """Both experts of Wan 2.2 14B."""
    high = load_unet(workflow, WAN_14B_HIGH, "High-noise expert (or a GGUF loader)")
    low = load_unet(workflow, WAN_14B_LOW, "Low-noise expert (or a GGUF loader)")
    return Loaded(high, load_umt5(workflow), load_vae(workflow, WAN_14B_VAE), low)


def load_hunyuan(workflow: Workflow, converted: str = "") -> Loaded:
    """HunyuanVideo, or a model file of that name which was converted to it."""
    if converted:
        unet = workflow.add(
            "UNETLoader", "Converted, fp8", size=(400, 110), unet_name=f"{converted}.safetensors",
            weight_dtype="fp8_e4m3fn",
        )  # fmt: skip
    else:
        unet = load_unet(workflow, HUNYUAN_T2V, "HunyuanVideo, fp8", "fp8_e4m3fn")
    clip = workflow.add(
        "DualCLIPLoader",
        "Text encoders",
        models=[CLIP_L_FILE, LLAVA],
        size=(400, 170),
        clip_name1=CLIP_L_FILE.name,
        clip_name2=LLAVA.name,
        type="hunyuan_video",
        device="default",
    )
    return Loaded(unet, clip, load_vae(workflow, HUNYUAN_VAE))
