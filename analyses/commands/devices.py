"""Where a command may compute."""


def checked(name: str) -> str:
    """The same name, once a tensor could be made there.

    Raises:
        ValueError: If torch does not know the device, or cannot use it on this machine.
    """
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"device is {name!r}, but torch cannot use it here ({reason}): give cpu, or ask `unweave doctor`."
        ) from error
    return name
