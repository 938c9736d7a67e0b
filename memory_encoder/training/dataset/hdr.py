"""HDR and wide-gamut pictures as ordinary ones: what a BT.709 screen shows of PQ and HLG (ITU-R BT.2100), of BT.2020
and Display P3. Not from the paper.

Reference white, 203 nits (ITU-R BT.2408), becomes nearly white; everything below nine tenths of it stays as bright as
it is, what is brighter is rolled off towards white. Colours of BT.2020 that BT.709 does not have are clipped.
"""

from __future__ import annotations

import numpy as np

TRANSFERS = {16: "PQ", 18: "HLG"}  # code points of H.273
GAMUTS = {9: "BT.2020", 12: "Display P3"}
_WHITE, _PEAK = 203.0, 1000.0  # nits: reference white, and the screen that HLG is made for
_KNEE = 0.9  # of the gamma-coded range
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
_BT2020 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
_P3 = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]], np.float32)
_TO_BT709 = {2: _BT2020, 9: _BT2020, 12: _P3}  # unnamed primaries (2) are BT.2020 where the transfer is HDR


def colours_of(transfer: int, primaries: int) -> str:
    """How pictures with these code points differ from ordinary ones: PQ, HLG, a wide gamut's name, or nothing."""
    return TRANSFERS.get(transfer) or GAMUTS.get(primaries, "")


class ToneMapping:
    """RGB uint16 [H,W,3] of the whole range -> RGB uint8. transfer: what `colours_of` gave. primaries: as in H.273."""

    def __init__(self, transfer: str, primaries: int) -> None:
        self.transfer, self.to_bt709 = transfer, _TO_BT709.get(primaries)
        self.light = _light_of(transfer, np.arange(65536) / 65535).astype(np.float32)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        light = self.light[pixels]
        if self.transfer == "HLG":  # scene light becomes that of the screen
            light = light * (light @ _LUMA)[..., None] ** 0.2 * (_PEAK / _WHITE)
        if self.to_bt709 is not None:
            light = np.maximum(light @ self.to_bt709.T, 0)
        if self.transfer in GAMUTS.values():  # nothing is brighter than white
            return np.rint(255 * np.clip(_coded(light), 0, 1)).astype(np.uint8)
        brightest = _coded(light.max(axis=-1, keepdims=True))
        over = np.maximum(brightest - _KNEE, 0) / (1 - _KNEE)
        wanted = np.minimum(brightest, _KNEE) + (1 - _KNEE) * over / (1 + over)
        light = light * (_linear(wanted) / np.maximum(_linear(brightest), 1e-6))  # one factor: hues stay
        return np.rint(255 * np.clip(_coded(light), 0, 1)).astype(np.uint8)


def _light_of(transfer: str, value: np.ndarray) -> np.ndarray:
    """Light of values in 0..1: in reference whites of the screen for PQ, 0 to 1 of the scene for HLG, else of white."""
    if transfer in GAMUTS.values():
        return _linear(value)
    if transfer == "PQ":
        power = value ** (32 / 2523)
        return 10000 / _WHITE * (np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)) ** (8192 / 1305)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)


def _coded(light: np.ndarray) -> np.ndarray:
    """The transfer of sRGB, in which Save Film and ComfyUI have their pictures; goes on above 1."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def _linear(coded: np.ndarray) -> np.ndarray:
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
