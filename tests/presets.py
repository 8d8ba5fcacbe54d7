"""Small networks that replace the presets."""

from deepfovea.generators import Preset
from deepfovea.generators.stream.net import StreamNet
from deepfovea.generators.unet.net import RecurrentUNet, UNetConfig


def preset_of(config, weights=None):
    """The row of the table of presets for a configuration."""
    network = RecurrentUNet if isinstance(config, UNetConfig) else StreamNet
    return Preset(network, config, weights, "for a test")
