"""``python -m caffe_tools`` is the command ``caffe-layers``."""

import sys

from caffe_tools.entry import main

sys.exit(main())
