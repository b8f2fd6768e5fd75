"""`python -m pyresilience_middleware.cli`, where the console script is not installed."""

from __future__ import annotations

import sys

from pyresilience_middleware.cli import main

sys.exit(main())
