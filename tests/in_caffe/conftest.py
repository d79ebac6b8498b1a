"""These tests run inside a real Caffe and need nothing but caffe, numpy and pytest:

python -m pytest tests/in_caffe
"""

import sys
from pathlib import Path

# Caffe finds a Python layer's module as Python does; its users put layers/ on PYTHONPATH.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "layers"))
