"""Asks for torchvision only where a data set needs it, and says plainly when it does not fit PyTorch."""

import torch

from east.errors import EastError


def require_torchvision() -> None:
    """Import torchvision.

    Raises:
        EastError: if it is missing, or built for another build of PyTorch than the one installed.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise EastError(
            f"torchvision cannot be imported beside PyTorch {torch.__version__} ({error}). "
            "Install the torchvision built for this PyTorch: `make setup` installs a pair that fits."
        ) from error
