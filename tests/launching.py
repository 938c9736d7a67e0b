"""Processes that `accelerate launch` starts, on CPUs."""

from __future__ import annotations


def launched(*how: str, processes: int = 2) -> list[str]:
    """What Python is told to start a script in processes on CPUs by `accelerate launch`; ACCELERATE_USE_CPU for DDP.

    Not `--cpu`, which starts one process only, whatever it is told.
    """
    place = ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1"]
    return ["-m", "accelerate.commands.launch", *how, "--num_processes", str(processes), *place]
