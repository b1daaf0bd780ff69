"""What the commands print: one console, numbers with units, the first line, small tables."""

from __future__ import annotations

import codecs
import math
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 80
_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN = str.maketrans(
    {"Å": "A", "·": "-", "★": "*", "✓": "ok", "✗": "X", "σ": "s", "±": "+-", "²": "2", "³": "3", "°": "deg"}
)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace what a terminal without Unicode cannot show."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(
        c if c.isascii() else "-" if c in "─━╸╺" else "#" if c in _BLOCKS else "?" for c in text
    ), error.end


codecs.register_error("equitorch", _plain)


@cache
def _console(stream: int, width: int | None, color: bool) -> Console:
    from rich.console import Console

    return Console(
        stderr=stream == 2,
        highlight=False,
        soft_wrap=False,
        emoji=False,
        width=width,
        no_color=not color,
        legacy_windows=False,
    )


def console(*, stderr: bool = False) -> Console:
    """Return the console of the standard output (or error), 80 columns wide when it is not a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and "utf" not in (getattr(stream, "encoding", None) or "ascii").lower():
        reconfigure(errors="equitorch")
    width = None if stream.isatty() else WIDTH
    return _console(2 if stderr else 1, width, not os.environ.get("NO_COLOR"))


def is_live() -> bool:
    """Tell whether the standard output is a terminal that can be redrawn."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb" and not os.environ.get("CI")


def say(text: str = "", *, style: str | None = None, stderr: bool = False) -> None:
    """Print a line as it is: square brackets are no markup, long paths are not broken."""
    console(stderr=stderr).print(text, style=style, markup=False, soft_wrap=True)


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits and no needless exponent; ``-`` for a missing one.

    >>> number(0.0213456), number(41.26), number(1234.6), number(3.2e-7), number(float("nan")), number(0.0)
    ('0.0213', '41.3', '1235', '3.20e-7', '-', '0')
    """
    if value is None or not math.isfinite(value):
        return "-" if value is None or math.isnan(value) else "inf"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -3 or exponent > 6:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.{max(digits - 1 - exponent, 0)}f}"


def duration(seconds: float) -> str:
    """Write a time as people say it.

    >>> duration(1.62), duration(250), duration(7260)
    ('1.6 s', '4 min 10 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def count(value: int) -> str:
    """Write a large count shortly.

    >>> count(950), count(182_000), count(4_500_000)
    ('950', '182 k', '4.5 M')
    """
    if value < 10_000:
        return f"{value:,}".replace(",", " ")
    return f"{value / 1e3:.0f} k" if value < 1e6 else f"{value / 1e6:.3g} M"


def plural(value: int, unit: str) -> str:
    """Write a count with its unit, singular or plural.

    >>> plural(1, "step"), plural(2, "step"), plural(20_000, "frame")
    ('1 step', '2 steps', '20 k frames')
    """
    return f"{count(value)} {unit}{'s' * (value != 1)}"


def sparkline(values: Sequence[float], width: int = 8) -> str:
    """Draw the last values as a row of blocks on a logarithmic scale.

    >>> sparkline([8.0, 4.0, 2.0, 1.0])
    '█▆▃▁'
    """
    kept = [math.log(v) for v in list(values)[-width:] if math.isfinite(v) and v > 0]
    if not kept:
        return ""
    low, span = min(kept), max(kept) - min(kept)
    return "".join(_BLOCKS[round((v - low) / span * 7) if span else 3] for v in kept)


def field(name: str, text: str) -> None:
    """Print one line of a screen: a bold name in the margin, then the text."""
    from rich.text import Text

    console().print(Text.assemble((f"{name:<8} ", "bold"), text), soft_wrap=True)


def listing(name: str, parts: Iterable[str]) -> None:
    """Print ``name`` and the parts joined by dots, folded at 80 columns with the margin kept."""
    lines, line = [], ""
    for part in parts:
        longer = f"{line} · {part}" if line else part
        if line and len(longer) > WIDTH - 9:
            lines.append(line)
            longer = part
        line = longer
    folded = [
        piece for text in [*lines, line] for piece in textwrap.wrap(text, WIDTH - 9, break_on_hyphens=False)
    ]
    for i, text in enumerate(folded):
        field(name if i == 0 else "", text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, indent: int = 1) -> None:
    """Print rows of text in columns: the first to the left, the others to the right."""
    rows = [list(row) for row in rows]
    widths = [max(len(r[i]) for r in [list(header), *rows]) for i in range(len(header))]
    for i, row in enumerate([list(header), *rows]):
        cells = [
            c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        say(" " * indent + "  ".join(cells).rstrip(), style="bold" if i == 0 else None)


def banner() -> None:
    """Print the first line of every long command: versions, device, kernels."""
    import torch

    from equitorch import __version__

    device = (
        f"cuda ({torch.cuda.get_device_name()})"
        if torch.cuda.is_available()
        else f"cpu ({torch.get_num_threads()} threads)"
    )
    if torch.cuda.is_available() and find_spec("triton") is not None:
        kernels = "kernels: triton"
    elif find_spec("numba") is not None:
        kernels = "kernels: numba"
    else:
        kernels = "kernels: reference (numba not available)"
    version = ".".join(__version__.split(".")[:2])
    say(f"equitorch {version} · torch {torch.__version__} · {device} · {kernels}", style="dim")


def warn(text: str) -> None:
    """Print a warning; the command goes on."""
    from rich.text import Text

    for i, line in enumerate(textwrap.wrap(text, WIDTH - 9, break_on_hyphens=False, break_long_words=False)):
        console().print(
            Text.assemble(("WARNING  " if i == 0 else " " * 9, "bold yellow"), line), soft_wrap=True
        )
