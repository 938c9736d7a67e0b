"""A node that ComfyUI loads for tests: a language model whose answer is two shots of half a second."""

from __future__ import annotations

from typing import Any

ANSWER = """Sure! Here is the storyboard for your idea:
```json
{"characters": {"Mira": "a tall boy", "The kitchen": "green tiles"},
 "shots": [{"start": 0, "end": 0.5, "prompt": "Mira lights the stove in the kitchen"},
           {"start": 0.5, "end": 1, "prompt": "Tom waves",},]}
```
Let me know if I should change a shot."""


class Writer:
    """What core's Generate Text needs of a CLIP."""

    def tokenize(self, text: str, **options: Any) -> dict[str, str]:
        return {"text": text}

    def generate(self, tokens: dict[str, str], **options: Any) -> str:
        told = ("Answer with one JSON object", "- Mira: ", "exactly 4 shots, 20 seconds in all", "The idea:\n")
        missing = [words for words in told if words not in tokens["text"]]
        return f"I was not told {missing}" if missing else ANSWER

    def decode(self, tokens: str, **options: Any) -> str:
        return tokens


class TestLanguageModel:
    """Stands for Load CLIP with a language model."""

    FUNCTION, CATEGORY, RETURN_TYPES = "load", "test", ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def load(self) -> tuple[Writer]:
        return (Writer(),)


NODE_CLASS_MAPPINGS = {"TestLanguageModel": TestLanguageModel}
