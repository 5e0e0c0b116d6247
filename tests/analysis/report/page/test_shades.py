"""Shades of proportions: text is readable on every one of them, and more is always lighter."""

import numpy as np

from lcprobe.analysis.report.page.shades import shade


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_text_has_enough_contrast_on_every_shade():
    for value in np.linspace(0, 1, 101):
        dark, light = sorted(map(luminance, shade(float(value))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, value


def test_lightness_rises_with_the_value_and_values_outside_have_the_ends():
    lightness = [luminance(shade(float(value))[0]) for value in np.linspace(0, 1, 101)]
    assert lightness == sorted(lightness)
    assert shade(-0.1)[0] == shade(0)[0] == "#00224e"
    assert shade(1.1)[0] == shade(1)[0] == "#fee838"
