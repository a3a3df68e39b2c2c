"""The demo's writer of ComCam-like exposures, for tests: `deploy/` is not a package, so it is loaded by path."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_PATH = Path(__file__).parents[2] / "deploy" / "demo" / "exposures.py"
_SPEC = importlib.util.spec_from_file_location("arriero_demo_exposures", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

exposure_name = _MODULE.exposure_name
metadata_index = _MODULE.metadata_index
write_exposure = _MODULE.write_exposure
write_night = _MODULE.write_night
