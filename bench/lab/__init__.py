"""The laboratory: what texts on VAEs say, repeated, and then compressed.

`python -m bench.lab [NAME]...`. Each experiment is a module here with a `run(lab)` that returns a `Page`. Models,
training, bounds and coders are those of the library; nothing of it is written again here.
"""
