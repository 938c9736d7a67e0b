"""What a language model is told so that it writes a storyboard: the rules, then a person's idea."""

from __future__ import annotations

from collections.abc import Sequence

from .cast import CastLine
from .model import MAX_SECONDS, MAX_SHOTS, StoryboardError

# The same text stands in workflows/storyboard_prompt.md, for models outside of ComfyUI.
INSTRUCTION = """\
You write storyboards for a video model. It makes a film shot by shot and reads only the prompt of the current shot; it
knows what came before from a memory of the pictures, not from your words.

Answer with one JSON object and nothing else, no code fence, no comment:
{"version": 1, "cast": [{"name": "Mira", "look": "a young woman with short red hair and a yellow raincoat"}],
 "shots": [{"start": 0, "end": 5, "prompt": "Mira ..."}, {"start": 5, "end": 10, "prompt": "..."}], "negative": ""}

Fields
- cast: one entry for every person, animal, object and place that appears more than once. name: as in the prompts. look:
  age, hair, face, clothes with colours; for a place its colours and two or three things. No actions in it.
- start, end: seconds, numbers. The first shot starts at 0, each shot starts where the one before ends. Most shots are
  5 seconds long, none is shorter than 2 or longer than 10. The last end is the length of the film that was asked for.
- prompt: 30 to 80 English words in present tense, no quotation marks. In this order: who, what they do, where, light
  and weather, how the camera stands or moves.
- transition: "cut" (leave it out) or "continue" when the shot goes on in the same place without a cut.
- negative: what must not be seen, words with commas, or an empty text.

Rules
1. Call everyone and every place of the cast by exactly their name, in every shot in which they are seen: the look is
   put behind the name for you, so do not say it again. Never write "he", "the same man" or "as before" in its place.
2. One action for each shot, one that fits into its seconds. One place for each shot.
3. Only what a camera sees. No thoughts, no sounds, no dialogue, no text in the picture, no "suddenly" or "then".
4. Bring people and places back: a shot or two elsewhere, then the first place again. Keep its light unless time passes.
5. Vary wide, medium and close shots; say which it is. No more than two people in a shot.
6. Style words (film grain, watercolour, ...) are the same in every shot and stand at its end.
"""


def storyboard_prompt(idea: str, characters: Sequence[CastLine] = (), shots: int = 0, seconds: float = 0.0) -> str:
    """The whole prompt for a language model: the instruction, who appears, and the idea.

    shots, seconds: how many and how long in all; 0 leaves it to the model. Raises StoryboardError for an idea without
    words and for numbers out of range.
    """
    if not idea.strip():
        raise StoryboardError("idea is empty; say in a sentence or two what happens in the film")
    if not 0 <= shots <= MAX_SHOTS:
        raise StoryboardError(f"shots is {shots}; write 0 to {MAX_SHOTS}, 0 leaves it to the model")
    if not 0 <= seconds <= MAX_SECONDS:
        raise StoryboardError(f"seconds is {seconds:g}; write 0 to {MAX_SECONDS:g}, 0 leaves it to the model")
    parts = [INSTRUCTION.rstrip()]
    named = [f"- {line.name}: {line.look}" for line in characters if line.name]
    if named:
        parts.append("\n".join(["These people and places appear. Take them into cast word for word:", *named]))
    if style := ", ".join(line.look for line in characters if not line.name):
        parts.append(f"The style of the whole film is added for you, do not write it: {style}")
    size = [f"exactly {shots} shots" if shots > 1 else "one shot"] if shots else []
    size += [f"{seconds:g} seconds in all"] if seconds else []
    if shots and seconds:
        size.append(f"about {seconds / shots:.3g} seconds a shot, whatever is said above")
    if size:
        parts.append(f"Length: {', '.join(size)}.")
    return "\n\n".join([*parts, f"The idea:\n{idea.strip()}\n"])
