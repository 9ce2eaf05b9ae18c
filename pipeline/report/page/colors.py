"""The page's colours as CSS: a lamp for light and one for dark, every text on a filled cell readable (contrast 4.5 or more in both).

Scores run from the page's own ground to a deep blue; changes from orange (worse) over the ground to blue (better), which people who do not
tell red from green do tell apart. Cells name a step of the ramp by class (`s0`…`s20`, `c-10`…`c10`), so the page stays small.
"""

Rgb = tuple[float, float, float]

STEPS = 20
"""Steps of the ramp of scores; the ramp of changes has half as many on either side."""
ARM_COLORS_DARK = ("#a3aab5", "#7aa7ff", "#fbb454", "#3ddba0", "#e58bf5", "#3fd3ee", "#ff8a80", "#b3e05c", "#f3f4f6", "#ff8fc7")
LIGHT = {"ground": "#f8fafc", "score": "#16337f", "better": "#1d4ed8", "worse": "#b45309"}
DARK = {"ground": "#1b212a", "score": "#8db4ff", "better": "#6d9bff", "worse": "#e8913a"}
INKS = ("#040507", "#ffffff")
LEAST_CONTRAST = 4.5


def rgb(color: str) -> Rgb:
    """`#rrggbb` as fractions."""
    return (int(color[1:3], 16) / 255, int(color[3:5], 16) / 255, int(color[5:7], 16) / 255)


def mix(first: str, second: str, share: float) -> str:
    """The colour `share` of the way from `first` to `second`."""
    return "#" + "".join(f"{round(255 * (a + (b - a) * share)):02x}" for a, b in zip(rgb(first), rgb(second), strict=True))


def luminance(color: str) -> float:
    """Relative luminance of sRGB, by WCAG 2.1."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb(color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, 1 to 21, by WCAG 2.1."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def ink_on(ground: str) -> str:
    """The ink that is read best on `ground`."""
    return max(INKS, key=lambda ink: contrast(ink, ground))


def filled(kind: str, share: float) -> tuple[str, str]:
    """The cell colours of a step, light and dark."""
    return mix(LIGHT["ground"], LIGHT[kind], share), mix(DARK["ground"], DARK[kind], share)


def ramp_css() -> str:
    """A rule for every step of both ramps."""
    rules = [rule(f"s{step}", *filled("score", step / STEPS)) for step in range(STEPS + 1)]
    half = STEPS // 2
    rules += [rule(f"c{step}", *filled("better" if step >= 0 else "worse", abs(step) / half)) for step in range(-half, half + 1)]
    return "\n".join(rules)


def rule(name: str, light: str, dark: str) -> str:
    """Ground and ink of one class."""
    return f".{name} {{ background: light-dark({light}, {dark}); color: light-dark({ink_on(light)}, {ink_on(dark)}); }}"


def arms_css() -> str:
    """The colour of each arm, as `--arm`: in the light those of the pictures beside the page."""
    from pipeline.report.plots import ARM_COLORS

    pairs = zip(ARM_COLORS, ARM_COLORS_DARK, strict=True)
    return "\n".join(f".arm{place} {{ --arm: light-dark({light}, {dark}); }}" for place, (light, dark) in enumerate(pairs))


def score_class(score: float) -> str:
    """The class of a score from 0 to 1."""
    return f"s{round(STEPS * min(max(score, 0.0), 1.0))}"


def change_class(change: float, limit: float) -> str:
    """The class of a change; `limit` has the full colour."""
    half = STEPS // 2
    return f"c{round(half * min(max(change / limit, -1.0), 1.0))}"
