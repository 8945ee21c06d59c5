"""Pillow reads and writes .bbans files, from `import bbans` on: `Image.open("x.bbans")`, `image.save("x.bbans")`.

Opening reads the header only; pixels are decoded when they are first needed. `save` takes the options of
`bbans.compress`: `image.save("x.bbans", effort=7)`.
"""

from __future__ import annotations

from typing import IO, Any

from PIL import Image, ImageFile, ImagePalette

from bbans.errors import BadImage
from bbans.image import metadata
from bbans.image.container import MAGIC, SUFFIX, Header
from bbans.image.modes import NOT_PILLOWS, PALETTE, PALETTE_ALPHA

FORMAT = "BBANS"
OPTIONS = ("model", "effort", "strip", "device", "threads")


class BbansImageFile(ImageFile.ImageFile):
    """A .bbans file, as Pillow sees it."""

    format = FORMAT
    format_description = "bits-back coding with a VAE, lossless"
    _decoded = True  # of what was pickled, and so is loaded but never opened

    def _open(self) -> None:
        """Raises `BadFile`; `TooLarge` or Pillow's own error for too many pixels; `BadImage` for modes Pillow lacks."""
        assert self.fp is not None
        header = Header.read(self.fp)  # type: ignore[arg-type]
        if header.mode in NOT_PILLOWS:
            raise BadImage(f"has mode {header.mode}, which Pillow does not have; bbans.bbans_decode takes it")
        self._size = header.width, header.height
        self._mode = header.mode
        self.info.update(metadata.as_info(header.mode, header.attributes))
        self.text = dict(metadata.texts(header.attributes))
        if header.mode == "P":
            self.palette = ImagePalette.raw("RGB", header.attributes.get(PALETTE, b""))
            if alpha := header.attributes.get(PALETTE_ALPHA):
                self.info["transparency"] = alpha
        self._decoded = False

    def load(self) -> Any:
        """Decode the pixels, once. Raises `BadFile`, `ModelMissing`, `DecodedDiffers`."""
        if not self._decoded:
            from bbans import decompress

            assert self.fp is not None
            self.fp.seek(0)
            self.im = decompress(self.fp.read()).im
            self._decoded = True
            if self._exclusive_fp:
                self.fp.close()
        return Image.Image.load(self)


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def _save(image: Image.Image, file: IO[bytes], name: str | bytes) -> None:
    from bbans import compress

    given = image.encoderinfo
    file.write(compress(image, **{key: given[key] for key in OPTIONS if key in given}))


def register() -> None:
    """Tell Pillow; again does no harm."""
    Image.register_open(FORMAT, BbansImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, SUFFIX)
    Image.register_mime(FORMAT, "image/x-bbans")
