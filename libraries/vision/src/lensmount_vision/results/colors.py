"""Colours of drawn results: stable per class, told apart by most colour-blind people."""

from __future__ import annotations

Color = tuple[int, int, int]

# BGR. Okabe and Ito's set (without black), then Paul Tol's "muted" set (without its near doubles), both designed for
# colour-blind readers: https://jfly.uni-koeln.de/color/ and https://sronpersonalpages.nl/~pault/.
PALETTE: tuple[Color, ...] = (
    (0, 159, 230),
    (233, 180, 86),
    (115, 158, 0),
    (66, 228, 240),
    (178, 114, 0),
    (0, 94, 213),
    (167, 121, 204),
    (136, 34, 51),
    (51, 119, 17),
    (119, 204, 221),
    (85, 34, 136),
    (153, 170, 68),
    (153, 68, 170),
    (51, 153, 153),
)


# Beyond the palette its colours come again, mixed with white (above zero) or black: 70 different ones.
_SHADES = (0.0, 0.4, -0.3, 0.65, -0.45)


def class_color(class_id: int) -> Color:
    """BGR colour of a class id, always the same."""
    cycle, index = divmod(class_id, len(PALETTE))
    shade = _SHADES[cycle % len(_SHADES)]
    blue, green, red = (round(c + (255 - c) * shade if shade > 0 else c * (1 + shade)) for c in PALETTE[index])
    return blue, green, red


def text_color(background: Color) -> Color:
    """Black or white, whichever stands out more from a BGR background (WCAG contrast)."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in background]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    # Equal contrast to black and to white lies where (L + 0.05)^2 = 1.05 * 0.05.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
