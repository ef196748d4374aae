"""python -m sde_diffusion: the command line."""

import sys

from .cli import main

sys.exit(main())
