"""Makes one study in this interpreter and prints its curve as JSON. Started by `run.py --scale`, never by hand."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from benchmarks.scale.studies import STUDIES

if __name__ == "__main__":
    print(json.dumps(asdict(STUDIES[sys.argv[1]].measure())))
