"""ports.Codec with AES in Galois/Counter mode; needs the extra `crypto`.

Sealed: length of the key's id (one byte), the id, twelve random bytes, ciphertext with its tag. The run is authenticated
along, so that nobody can move a sealed value to another one.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from noria.errors import DefinitionError, NoriaError, choices

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12
SIZES = (16, 24, 32)


class AesGcm:
    """`keys`: id -> 16, 24 or 32 bytes. The first one seals, unless `active` names another; all of them open. To rotate, add
    the new key everywhere, then make it active, then remove the old one when no run is left that it sealed."""

    def __init__(self, keys: Mapping[str, bytes], active: str | None = None) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise DefinitionError("AesGcm needs the package cryptography: pip install 'noria[crypto]'") from error
        wrong = [id for id, key in keys.items() if len(key) not in SIZES or not 1 <= len(id.encode()) <= 255]
        if wrong or not keys:
            raise DefinitionError(f"keys: {choices(wrong)}: a key has an id and 16, 24 or 32 bytes")
        self.active = active if active is not None else next(iter(keys))
        if self.active not in keys:
            raise DefinitionError(f"active: there is no key {self.active!r}; there are {choices(sorted(keys))}")
        self._ciphers: dict[str, AESGCM] = {id: AESGCM(key) for id, key in keys.items()}

    @classmethod
    def of(cls, text: str) -> AesGcm:
        """From `<id>:<base64>,<id>:<base64>…`, as NORIA_CODEC_KEYS has it; the first one is active."""
        try:
            pairs = [part.strip().split(":", 1) for part in text.split(",") if part.strip()]
            return cls({id: base64.b64decode(key, validate=True) for id, key in pairs})
        except (ValueError, binascii.Error) as error:
            raise DefinitionError("codec keys: give <id>:<base64 of 16, 24 or 32 bytes>, several with commas") from error

    def seal(self, data: bytes, context: bytes) -> bytes:
        # not from chance.py: a simulation repeats its chances, and a nonce that comes twice breaks the key
        id, nonce = self.active.encode(), secrets.token_bytes(NONCE)
        return bytes([len(id)]) + id + nonce + self._ciphers[self.active].encrypt(nonce, data, context)

    def open(self, data: bytes, context: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        size = data[0] if data else 0
        id, nonce, text = data[1 : 1 + size].decode(errors="replace"), data[1 + size : 1 + size + NONCE], data[1 + size + NONCE :]
        cipher = self._ciphers.get(id)
        if cipher is None:
            raise NoriaError(f"a value is sealed with key {id!r}; this process has {choices(sorted(self._ciphers))}")
        try:
            return cipher.decrypt(nonce, text, context)
        except (InvalidTag, ValueError) as error:
            raise NoriaError(f"a value sealed with key {id!r} does not open: another key of this id, or it was tampered with") from error
