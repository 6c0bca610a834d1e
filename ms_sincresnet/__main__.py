"""``python -m ms_sincresnet``: the command ``ms-sincresnet``."""

import sys

from ms_sincresnet.cli import main

sys.exit(main())
