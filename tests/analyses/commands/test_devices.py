import pytest

from analyses.commands.devices import checked


def test_a_device_that_cannot_be_used_is_refused_with_the_reason():
    assert checked("cpu") == "cpu"
    with pytest.raises(ValueError, match=r"device is 'cup', but torch cannot use it here \(.*\): give cpu"):
        checked("cup")
