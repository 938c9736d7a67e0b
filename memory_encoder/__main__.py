"""Entry point of `python -m memory_encoder`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
