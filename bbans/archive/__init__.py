"""Archives: many pictures in few chains, so that initial bits are paid once for each of them.

    report = archive.create("digits.bbansa", ["digits.npz"], model="mnist-binary")
    opened = archive.read("digits.bbansa")
    for entry in opened.entries: ...
    archive.extract(opened, Path("digits"))

The public names of the package, and nothing else.
"""

from bbans.archive.extracting import Loss, Outcome, check, extract, extract_array
from bbans.archive.reading import Archive, Entry, read
from bbans.archive.writing import CreateReport, create

__all__ = [
    "Archive",
    "CreateReport",
    "Entry",
    "Loss",
    "Outcome",
    "check",
    "create",
    "extract",
    "extract_array",
    "read",
]
