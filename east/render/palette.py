"""The colours of the figures, which colour-blind readers can distinguish, and what they become on a dark page."""

INK = "#1f2933"
MUTED = "#7b8794"
GRID = "#dde2e7"
PAPER = "#ffffff"

# The palette of Okabe and Ito without its yellow, which is too pale on white.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

SHADES = ("#eef2f6", "#a8c8e4", "#4d8fc4", "#0b5394", "#06264a")
"""From none to all, light to dark: the order is the same in grey."""

DARK = {
    INK: "#e3e8ee",
    MUTED: "#8793a0",
    GRID: "#2c3743",
    PAPER: "#12171d",
    "#0072b2": "#3f9fdc",
    "#d55e00": "#f07b2e",
    "#009e73": "#22b98d",
}
