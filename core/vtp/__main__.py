"""``python -m vtp`` is ``vtp``; ``torchrun --nproc-per-node 8 -m vtp run ...`` needs this form."""

import sys

from vtp.cli.main import main

sys.exit(main())
