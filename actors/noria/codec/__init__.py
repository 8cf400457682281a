"""Values sealed at rest: `Noria.connect(codec=AesGcm({"2026": key}))`. Every worker and client of a namespace needs it."""

from noria.codec.aes import AesGcm

__all__ = ["AesGcm"]
