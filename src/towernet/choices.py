from towernet.cli.options import *  # noqa
from towernet.cli.options import DEFAULT_MODELS  # noqa
