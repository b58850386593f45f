"""``python -m vtp`` is ``vtp``; ``torchrun --nproc-per-node 8 -m vtp run ...`` needs this form."""

import os
import sys

# ``-m`` lets Python files in the working folder go before installed packages, which ``vtp`` does not: that folder may
# hold somebody else's data set. Unless vtp itself is run from there.
_here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()) and os.getcwd() != _here:
    del sys.path[0]

from vtp.cli.main import main  # noqa: E402 (after the search path is ours)

sys.exit(main())
