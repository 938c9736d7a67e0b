"""What torch lacks where there is no card: with it, fake tensors on `cuda` run forward and backward in this process.

Nothing is compiled or preloaded. torch asks a table for the guard of a device, which builds for CPUs leave empty for
CUDA; and its autograd engine asks two functions whether a device has streams, through libtorch_cpu's jump table.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

TORCH: Any = torch._C
CUDA, PRIVATE, KINDS = 1, 20, 22  # c10::DeviceType
GUARDS = "_ZN3c104impl26device_guard_impl_registryE"
NO_STREAMS = {  # bool isAccelerator(DeviceType) and std::optional<DeviceType> getAccelerator(bool)
    "_ZN2at11accelerator13isAcceleratorEN3c1010DeviceTypeE": ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_int8),
    "_ZN2at11accelerator14getAcceleratorEb": ctypes.CFUNCTYPE(ctypes.c_uint16, ctypes.c_bool),
}
# Of the ELF format.
PT_DYNAMIC, DT_STRTAB, DT_STRSZ, DT_SYMTAB, DT_JMPREL, DT_PLTRELSZ = 2, 5, 10, 6, 23, 2
RELOCATION = np.dtype([("slot", "<u8"), ("kind", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])


@contextmanager
def streamless_cuda() -> Iterator[None]:
    """Within it CUDA is a device that needs no guard and has no streams. Does nothing where there is a card."""
    if torch.cuda.is_available():
        yield
        return
    slots = _jump_slots(set(NO_STREAMS))
    answers = {name: kind(lambda _: 0) for name, kind in NO_STREAMS.items()}
    before = {name: slot.value for name, slot in slots.items()}
    for name, slot in slots.items():
        slot.value = ctypes.cast(answers[name], ctypes.c_void_p).value
    try:
        # Threads of the engine's own are for devices that are there.
        with _guarded_cuda(), torch.autograd.set_multithreading_enabled(False):
            yield
    finally:
        for name, slot in slots.items():
            slot.value = before[name]


@contextmanager
def _guarded_cuda() -> Iterator[None]:
    """Puts torch's guard for devices written in Python, which does nothing, where the one for CUDA is missing."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * KINDS).in_dll(library, GUARDS)
    if guards[CUDA] is not None or torch.version.cuda is not None:  # a build for CUDA without a card sees to it itself
        yield
        return
    TORCH._acc.register_python_privateuseone_device_guard(_Guard.only)
    guards[CUDA], guards[PRIVATE] = guards[PRIVATE], None
    try:
        yield
    finally:
        guards[CUDA] = None


class _Guard(TORCH._acc.DeviceGuard):
    only: _Guard

    def type_(self) -> Any:
        return TORCH._autograd.DeviceType.CUDA


_Guard.only = _Guard()


def _jump_slots(names: set[str]) -> dict[str, ctypes.c_void_p]:
    """Where libtorch_cpu keeps the addresses of the functions that it calls by these names, made writable."""
    base = _base_of("libtorch_cpu.so")

    def memory(address: int, size: int) -> bytes:
        return ctypes.string_at(address, size)

    header = memory(base, 64)
    programs, entry, count = *struct.unpack_from("<Q", header, 32), *struct.unpack_from("<HH", header, 54)
    dynamic: dict[int, int] = {}
    for number in range(count):
        kind, _, _, place, _, _, size, _ = struct.unpack("<IIQQQQQQ", memory(base + programs + number * entry, 56))
        if kind == PT_DYNAMIC:
            dynamic = dict(struct.iter_unpack("<QQ", memory(base + place, size)))
    strings, symbols, jumps = (
        dynamic[tag] if dynamic[tag] > base else base + dynamic[tag] for tag in (DT_STRTAB, DT_SYMTAB, DT_JMPREL)
    )
    relocations = np.frombuffer(memory(jumps, dynamic[DT_PLTRELSZ]), RELOCATION)
    entries = np.frombuffer(memory(symbols, 24 * (int(relocations["symbol"].max()) + 1)), "<u4").reshape(-1, 6)
    name_of_slot, text = entries[relocations["symbol"], 0], memory(strings, dynamic[DT_STRSZ])
    found: dict[str, ctypes.c_void_p] = {}
    for name in names:
        place = text.find(b"\0" + name.encode() + b"\0") + 1
        for slot in relocations["slot"][name_of_slot == place] if place else ():
            found[name] = _writable(base + int(slot))
    if missing := names - set(found):
        raise RuntimeError(f"torch {torch.__version__} does not call {missing}; see how its autograd asks for streams")
    return found


def _base_of(library: str) -> int:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(f"/{library}"):
            return int(line.split("-")[0], 16)  # the first mapping holds the header
    raise RuntimeError(f"{library} is not loaded")


def _writable(address: int) -> ctypes.c_void_p:
    start = address // mmap.PAGESIZE * mmap.PAGESIZE
    wanted = mmap.PROT_READ | mmap.PROT_WRITE
    if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start), ctypes.c_size_t(mmap.PAGESIZE), wanted):
        raise OSError(ctypes.get_errno(), "the jump table cannot be made writable")
    return ctypes.c_void_p.from_address(address)
