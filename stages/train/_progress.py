"""The samples of a run over time: a contact sheet to compare moments, and an animation to watch. Pillow alone.

Both are made of the grids of the snapshots, whose latents are the same throughout, and have the same bytes each time.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.common.files import write_atomically

_ROWS, _FRAMES = 16, 60  # of the sheet and of the animation at most, evenly spread over the run
_WIDTH = 800  # pixels of a frame at most
_CAPTION, _INK, _PAPER = 26, 70, 255  # height of a line of text in pixels, grey levels
_FRAME, _LAST = 350, 2500  # milliseconds


def write_progress(work: Path, moments: Sequence[tuple[float, Path]], *, rows_a_grid: int) -> None:
    """Write `progress.png` and `progress.webp` from (kimg, grid) of each snapshot, in order.

    The sheet has one row per moment: the first row of its grid, which has `rows_a_grid`. Grids of another shape than
    the last, as an older version may have left in a run that goes on, are left out.
    """
    shape = _shape(moments[-1][1])
    moments = [moment for moment in moments if _shape(moment[1]) == shape]
    strips = [(kimg, _first_row(_open(path), rows_a_grid)) for kimg, path in _spread(moments, _ROWS)]
    font = ImageFont.load_default(size=14)
    left = max(int(font.getlength(_words(kimg))) for kimg, _ in strips) + 18
    height = strips[0][1].height
    sheet = Image.new(strips[0][1].mode, (left + strips[0][1].width, height * len(strips)), _grey(strips[0][1], _PAPER))
    pen = ImageDraw.Draw(sheet)
    for row, (kimg, strip) in enumerate(strips):
        sheet.paste(strip, (left, row * height))
        pen.text((left - 8, row * height + height // 2), _words(kimg), _grey(strip, _INK), font, anchor="rm")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=9)
    write_atomically(work / "progress.png", buffer.getvalue())

    frames = [_frame(kimg, _open(path), font) for kimg, path in _spread(moments, _FRAMES)]
    durations = [_FRAME] * (len(frames) - 1) + [_LAST]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=85, method=4
    )
    write_atomically(work / "progress.webp", buffer.getvalue())


def _spread(moments: Sequence[tuple[float, Path]], count: int) -> list[tuple[float, Path]]:
    """At most `count`, evenly, the first and the last among them."""
    if len(moments) <= count:
        return list(moments)
    return [moments[round(place)] for place in np.linspace(0, len(moments) - 1, count)]


def _shape(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def _open(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture.convert("RGB") if picture.mode not in ("L", "RGB") else picture.copy()


def _first_row(grid: Image.Image, rows: int) -> Image.Image:
    """Its first row of cells; between cells and around them lie borders of equal width."""
    return grid.crop((0, 0, grid.width, grid.height // rows))


def _frame(kimg: float, grid: Image.Image, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """The whole grid, made smaller where it is large, with a line of text below."""
    if grid.width > _WIDTH:
        grid = grid.resize((_WIDTH, round(grid.height * _WIDTH / grid.width)), Image.Resampling.LANCZOS)
    frame = Image.new("RGB", (grid.width, grid.height + _CAPTION), (_PAPER,) * 3)
    frame.paste(grid, (0, 0))
    place = (grid.width // 2, grid.height + _CAPTION // 2)
    ImageDraw.Draw(frame).text(place, _words(kimg), (_INK,) * 3, font, anchor="mm")
    return frame


def _words(kimg: float) -> str:
    return f"{kimg:,.0f} kimg" if kimg >= 10 else f"{kimg:.2g} kimg"


def _grey(picture: Image.Image, level: int) -> int | tuple[int, ...]:
    return level if picture.mode == "L" else (level,) * 3
