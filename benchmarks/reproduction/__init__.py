"""The small reproduction of the paper's tables; `benchmarks/protocol.md` says what is trained, measured and claimed."""
