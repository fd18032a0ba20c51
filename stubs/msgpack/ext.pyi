from typing import NamedTuple

class _ExtType(NamedTuple):
    code: int
    data: bytes

class ExtType(_ExtType):
    def __new__(cls, code: int, data: bytes) -> ExtType: ...
