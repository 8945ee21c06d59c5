"""Draws pictures that are no photographs, for `bench.graphics`: what people keep as PNG. Nothing is read from files.

Knows Pillow, NumPy and matplotlib; refuses to know bbans. All chance comes from one seed, so that a run draws what the
run before drew, as long as fonts and libraries are the same.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SEED = 1
TEXT = "bits back are paid for what the picture leaves to chance and no pixel comes back other than it was"
WORDS = TEXT.split()

Random = np.random.Generator


def drawings() -> Iterator[tuple[str, Image.Image]]:
    """(name, picture), from the smallest to the largest of each kind."""
    random = np.random.default_rng(SEED)
    yield "dot", Image.new("RGB", (1, 1), (200, 30, 60))
    yield "column", Image.fromarray(np.arange(200, dtype=np.uint8)[:, None])
    yield "constant", Image.new("RGB", (1000, 700), (240, 240, 235))
    yield "nothing seen", Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    # noise
    yield "noise", Image.fromarray(random.integers(0, 256, (200, 300, 3), np.uint8))
    yield "noise, RGBA", Image.fromarray(random.integers(0, 256, (100, 120, 4), np.uint8))
    yield "noise, bilevel", Image.fromarray(random.random((200, 300)) < 0.5)
    yield "noise of 4 greys", Image.fromarray(random.integers(0, 4, (200, 300), np.uint8) * 85)
    # icons
    for side in (16, 48, 256):
        yield f"icon {side}", icon(random, side)
    yield "icon 48, LA", icon(random, 48).convert("LA")
    yield "icons", sheet_of_icons(random)
    yield "shadow", shadow()
    yield "hidden colour", hidden_colour(random)
    # windows
    yield "window", window(random, 800, 600)
    yield "window, RGBA", window(random, 640, 480).convert("RGBA")
    yield "desktop", desktop(random, 1600, 1200)
    yield "terminal", terminal(random)
    yield "slide", slide()
    # lines, charts
    yield "line art", lines(random, 4).resize((500, 500), Image.Resampling.LANCZOS)
    yield "line art, bilevel", lines(random, 1).convert("1", dither=Image.Dither.NONE)
    yield "chart", chart(random).convert("RGB")
    yield "chart, RGBA", chart(random)
    yield "map", terrain(random)
    # text
    yield "text", page(random, 700, 900)
    yield "text, bilevel", page(random, 1240, 1754).convert("1", dither=Image.Dither.NONE)
    # palettes
    yield "palette", polygons(random).quantize(32)
    yield "palette, transparent", transparent_palette(random)
    yield "palette, dithered", smooth(random, 400, 300).convert("P")
    yield "palette of a photograph", smooth(random, 400, 300).quantize(256)
    # dithered and regular
    yield "dithered", smooth(random, 600, 400).convert("1")
    yield "dithered by a pattern", pattern_dithered(random)
    yield "checks", Image.fromarray((np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8))
    yield (
        "stripes",
        Image.fromarray(np.tile(np.array([[[250, 10, 10], [10, 10, 200], [9, 200, 9]]], np.uint8), (90, 70, 1))),
    )
    # gradients
    yield "gradient", gradient(256, 100, (0, 0, 0), (255, 255, 255), 0).convert("L")
    yield "gradient, slanting", gradient(640, 480, (20, 60, 160), (250, 200, 120), 1)
    yield "fractal", fractal()
    # pixel art
    yield "pixel art", pixel_art(random).convert("RGB")
    yield "pixel art, RGBA", pixel_art(random)
    # half photographs
    yield "half text", half_text(random, 800, 600)
    yield "page with photograph", page_with_photograph(random)
    yield "wide", wide(random)


def smooth(random: Random, width: int, height: int) -> Image.Image:
    """Like a photograph: soft shapes of all sizes, and some noise."""
    pixels = np.full((height, width, 3), 128.0)
    for side in (4, 16, 64):
        coarse = random.normal(0, 1, (height // side + 2, width // side + 2, 3)).clip(-2, 2)
        layer = Image.fromarray((coarse * 60 + 128).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        pixels += (np.asarray(layer) - 128.0) * side / 64
    return Image.fromarray((pixels + random.normal(0, 2, pixels.shape)).clip(0, 255).astype(np.uint8))


def gradient(width: int, height: int, start: tuple[int, ...], end: tuple[int, ...], slope: float) -> Image.Image:
    """From left to right, and downwards as steeply as `slope` says."""
    y, x = np.indices((height, width))
    share = ((x + slope * y) / (width - 1 + slope * (height - 1)))[..., None]
    return Image.fromarray(((1 - share) * start + share * end).round().astype(np.uint8))


def write(draw: ImageDraw.ImageDraw, random: Random, box: tuple[int, int, int, int], size: int, fill: object) -> None:
    """Lines of words into a box (left, upper, right, lower)."""
    font = ImageFont.load_default(size)
    for y in range(box[1], box[3] - size, size * 3 // 2):
        line = " ".join(random.choice(WORDS, 40))
        while font.getlength(line) > box[2] - box[0]:
            line = line[: line.rfind(" ")] if " " in line else ""
        draw.text((box[0], y), line, fill, font)


def icon(random: Random, side: int) -> Image.Image:
    """RGBA with smooth edges; transparent black around them."""
    large = Image.new("RGBA", (4 * side, 4 * side))
    draw = ImageDraw.Draw(large)
    for share in (1.0, 0.7, 0.4):
        inset = round((1 - share) * 2 * side) + side // 8
        colour = (*map(int, random.integers(0, 256, 3)), 255)
        box = (inset, inset, 4 * side - 1 - inset, 4 * side - 1 - inset)
        kind = int(random.integers(3))
        if kind == 0:
            draw.ellipse(box, colour)
        elif kind == 1:
            draw.rounded_rectangle(box, side // 2, colour)
        else:
            draw.regular_polygon((2 * side, 2 * side, 2 * side - inset), int(random.integers(3, 8)), fill=colour)
    return large.resize((side, side), Image.Resampling.LANCZOS)


def sheet_of_icons(random: Random) -> Image.Image:
    sheet = Image.new("RGBA", (512, 512))
    for y in range(0, 512, 64):
        for x in range(0, 512, 64):
            sheet.paste(icon(random, 56), (x + 4, y + 4))
    return sheet


def shadow() -> Image.Image:
    """Black, of which only the alpha says anything."""
    alpha = Image.new("L", (400, 300))
    ImageDraw.Draw(alpha).rounded_rectangle((60, 60, 340, 240), 20, 180)
    picture = Image.new("RGBA", alpha.size)
    picture.putalpha(alpha.filter(ImageFilter.GaussianBlur(20)))
    return picture


def hidden_colour(random: Random) -> Image.Image:
    """A photograph, cut out by alpha alone."""
    picture = smooth(random, 300, 300)
    alpha = Image.new("L", (1200, 1200))
    ImageDraw.Draw(alpha).ellipse((150, 150, 1050, 1050), 255)
    picture.putalpha(alpha.resize((300, 300), Image.Resampling.LANCZOS))
    return picture


def window(random: Random, width: int, height: int) -> Image.Image:
    """A title with a gradient, a list, text, buttons."""
    picture = Image.new("RGB", (width, height), (250, 250, 250))
    picture.paste(gradient(width, 32, (60, 90, 160), (120, 160, 220), 0.3))
    draw = ImageDraw.Draw(picture)
    draw.text((12, 5), "A window", "white", ImageFont.load_default(18))
    draw.rectangle((0, 32, width // 4, height), (232, 234, 238))
    for i, y in enumerate(range(44, height - 30, 30)):
        small = icon(random, 20)
        picture.paste(small, (10, y), small)
        draw.text((38, y + 3), WORDS[i % len(WORDS)], (40, 40, 40), ImageFont.load_default(12))
    write(draw, random, (width // 4 + 16, 48, width - 16, height // 2), 13, (20, 20, 20))
    write(draw, random, (width // 4 + 16, height // 2, width - 16, height - 60), 22, (90, 30, 30))
    for i in range(3):
        right = width - 16 - 110 * i
        draw.rounded_rectangle((right - 96, height - 44, right, height - 12), 6, (225, 228, 235), (150, 150, 160))
        draw.text((right - 70, height - 37), ("Yes", "No", "Later")[i], "black", ImageFont.load_default(14))
    return picture


def desktop(random: Random, width: int, height: int) -> Image.Image:
    """Windows over a gradient."""
    picture = gradient(width, height, (10, 40, 70), (40, 130, 150), 0.7)
    for i in range(4):
        w, h = int(random.integers(width // 3, width // 2)), int(random.integers(height // 3, height // 2))
        picture.paste(window(random, w, h), (width // 10 + i * width // 8, height // 12 + i * height // 7))
    return picture


def terminal(random: Random) -> Image.Image:
    """Of 8 colours, in a palette, letters without smooth edges."""
    picture = Image.new("P", (800, 500))
    picture.putpalette([16, 16, 16, *map(int, random.integers(80, 256, 21))])
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "1"
    for y in range(4, 490, 16):
        write(draw, random, (4, y, int(random.integers(100, 790)), y + 14), 12, int(random.integers(1, 8)))
    return picture


def slide() -> Image.Image:
    picture = gradient(1280, 720, (250, 250, 255), (200, 210, 235), 0.5)
    draw = ImageDraw.Draw(picture)
    draw.text((80, 60), "Bits back", (20, 30, 80), ImageFont.load_default(72))
    for i, word in enumerate(WORDS[:6]):
        draw.ellipse((90, 215 + 75 * i, 106, 231 + 75 * i), (180, 40, 40))
        draw.text((130, 200 + 75 * i), word, (40, 40, 50), ImageFont.load_default(40))
    return picture


def lines(random: Random, width: int) -> Image.Image:
    """Black arcs and lines on white, 1000 x 1000."""
    picture = Image.new("L", (1000, 1000), 255)
    draw = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y, z, w = map(int, random.integers(0, 1000, 4))
        draw.line((x, y, z, w), 0, width)
        draw.arc((min(x, z), min(y, w), max(x, z), max(y, w)), 0, int(random.integers(90, 360)), 0, width)
    return picture


def chart(random: Random) -> Image.Image:
    """By matplotlib, RGBA without a background."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), dpi=100)
    left.plot(random.normal(0, 1, (60, 3)).cumsum(0), label=WORDS[:3])
    left.legend()
    left.set_title("curves")
    right.scatter(*random.normal(0, 1, (2, 150)), c=random.random(150), alpha=0.6)
    right.set_title("points")
    file = io.BytesIO()
    figure.savefig(file, format="png", transparent=True)
    plt.close(figure)
    with Image.open(file) as image:
        return image.copy()


def terrain(random: Random) -> Image.Image:
    """Heights in steps of colour, with thin lines between: a map."""
    height = np.asarray(smooth(random, 900, 700).filter(ImageFilter.GaussianBlur(6)).convert("L")) // 12
    colours = random.integers(90, 256, (22, 3), np.uint8)
    edge = (height != np.roll(height, 1, 0)) | (height != np.roll(height, 1, 1))
    return Image.fromarray(np.where(edge[..., None], np.uint8(70), colours[height]))


def page(random: Random, width: int, height: int) -> Image.Image:
    """Text in several sizes, L."""
    picture = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(picture)
    top = 40
    for size in (40, 24, 16, 12, 10):
        write(draw, random, (40, top, width - 40, top + (height - 80) // 5), size, 0)
        top += (height - 80) // 5
    return picture


def polygons(random: Random) -> Image.Image:
    picture = Image.new("RGB", (500, 400), (230, 230, 210))
    draw = ImageDraw.Draw(picture)
    for _ in range(30):
        corners = random.integers(0, 500, (int(random.integers(3, 6)), 2))
        draw.polygon([(int(x), int(y)) for x, y in corners], tuple(map(int, random.integers(0, 256, 3))))
    return picture


def transparent_palette(random: Random) -> Image.Image:
    """Mode P, its first colours more or less transparent."""
    picture = polygons(random).quantize(24)
    picture.info["transparency"] = bytes([0, 128, 200])
    return picture


def pattern_dithered(random: Random) -> Image.Image:
    """Black and white by an ordered pattern, mode L."""
    steps = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
    grey = np.asarray(smooth(random, 512, 384).convert("L"))
    return Image.fromarray(((grey > np.tile(steps * 16 + 8, (96, 128))) * 255).astype(np.uint8))


def fractal() -> Image.Image:
    """The Mandelbrot set in 64 colours."""
    y, x = np.ogrid[-1.2:1.2:400j, -2.2:0.8:500j]
    c = x + 1j * y
    z, count = np.zeros_like(c), np.zeros(c.shape, int)
    for _ in range(63):
        inside = abs(z) <= 2
        z[inside] = z[inside] ** 2 + c[inside]
        count += inside
    colours = np.random.default_rng(SEED).integers(0, 256, (64, 3), np.uint8)
    return Image.fromarray(colours[count])


def pixel_art(random: Random) -> Image.Image:
    """Eight sprites, each its own mirror image, RGBA, enlarged eight times."""
    small = np.zeros((16, 128, 4), np.uint8)
    for i in range(8):
        colours = np.vstack([np.zeros((1, 4)), np.c_[random.integers(0, 256, (3, 3)), [255] * 3]])
        half = colours[random.integers(0, 4, (14, 7))]
        small[1:15, 16 * i + 1 : 16 * i + 15] = np.concatenate([half, half[:, ::-1]], 1)
    return Image.fromarray(small).resize((1024, 128), Image.Resampling.NEAREST)


def half_text(random: Random, width: int, height: int) -> Image.Image:
    """A photograph beside text."""
    picture = Image.new("RGB", (width, height), "white")
    picture.paste(smooth(random, width // 2, height))
    write(ImageDraw.Draw(picture), random, (width // 2 + 20, 20, width - 20, height - 20), 14, "black")
    return picture


def page_with_photograph(random: Random) -> Image.Image:
    picture = page(random, 1000, 1300).convert("RGB")
    picture.paste(smooth(random, 600, 400), (200, 500))
    return picture


def wide(random: Random) -> Image.Image:
    """3000 x 1200: a photograph, windows, text."""
    picture = Image.new("RGB", (3000, 1200), "white")
    picture.paste(smooth(random, 1000, 1200))
    picture.paste(desktop(random, 1000, 1200), (1000, 0))
    picture.paste(page(random, 1000, 1200), (2000, 0))
    return picture
