"""The exceptions of bbans. All have `BbansError` as base; their messages say what happened and what to do."""


class BbansError(Exception):
    """Base of every error that bbans raises on purpose."""


class BadImage(BbansError):
    """The input is no image, or one of a kind that bbans does not take."""


class BadFile(BbansError):
    """The file is not bbans', is truncated, or is damaged."""


class UnsupportedVersion(BadFile):
    """The file was written in a format version that this bbans does not know."""


class ModelMissing(BbansError):
    """The file needs a model that was not found."""


class BadModel(BbansError):
    """The model's files are missing, damaged or contradict one another."""


class InexactDevice(BbansError):
    """This machine computes an exact network differently, by every backend."""


class BadBackend(BbansError):
    """BBANS_BACKEND or BBANS_CODER is not a valid name, or names something that gives wrong results on this machine."""


class OutOfBits(BbansError):
    """A pop needs more bits than the stack holds, and no seed for padding was given."""


class DecodedDiffers(BbansError):
    """The file is whole, but this machine decodes other pixels than were encoded: it computes differently."""


class TooLarge(BbansError):
    """The picture has more pixels than bbans takes."""


class BadOutput(BbansError):
    """The output cannot be written: it exists, its folder is missing, or its format would lose pixels."""
