from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

from typing_extensions import Buffer, disjoint_base

from .exceptions import (
    BufferFull as BufferFull,
)
from .exceptions import (
    ExtraData as ExtraData,
)
from .exceptions import (
    FormatError as FormatError,
)
from .exceptions import (
    OutOfData as OutOfData,
)
from .exceptions import (
    PackException as PackException,
)
from .exceptions import (
    PackOverflowError as PackOverflowError,
)
from .exceptions import (
    PackValueError as PackValueError,
)
from .exceptions import (
    StackError as StackError,
)
from .exceptions import (
    UnpackException as UnpackException,
)
from .exceptions import (
    UnpackValueError as UnpackValueError,
)
from .ext import ExtType as ExtType

version: tuple[int, int, int]
__version__: str

_Default: TypeAlias = Callable[[Any], object]
_ExtHook: TypeAlias = Callable[[int, bytes], object]
_ListHook: TypeAlias = Callable[[list[Any]], object]
_ObjectHook: TypeAlias = Callable[[dict[Any, Any]], object]
_PairsHook: TypeAlias = Callable[[list[tuple[Any, Any]]], object]

class _Readable(Protocol):
    def read(self, n: int, /) -> bytes: ...

@disjoint_base
class Packer:
    def __init__(
        self,
        default: _Default | None = None,
        *,
        use_single_float: bool = False,
        autoreset: bool = True,
        use_bin_type: bool = True,
        strict_types: bool = False,
        datetime: bool = False,
        unicode_errors: str | None = None,
        buf_size: int = 262144,
    ) -> None: ...
    def pack(self, obj: object) -> bytes: ...
    def pack_array_header(self, size: int) -> bytes: ...
    def pack_map_header(self, size: int) -> bytes: ...
    def pack_ext_type(self, typecode: int, data: Buffer) -> bytes: ...
    def bytes(self) -> bytes: ...
    def reset(self) -> None: ...

@disjoint_base
class Unpacker:
    def __init__(
        self,
        file_like: _Readable | None = None,
        read_size: int = 0,
        *,
        use_list: bool = True,
        raw: bool = False,
        timestamp: int = 0,
        strict_map_key: bool = True,
        object_hook: _ObjectHook | None = None,
        object_pairs_hook: _PairsHook | None = None,
        list_hook: _ListHook | None = None,
        unicode_errors: str | None = None,
        max_buffer_size: int = 104857600,
        ext_hook: _ExtHook = ...,
        max_str_len: int = -1,
        max_bin_len: int = -1,
        max_array_len: int = -1,
        max_map_len: int = -1,
        max_ext_len: int = -1,
    ) -> None: ...
    def feed(self, next_bytes: Buffer) -> None: ...
    def read_array_header(self) -> int: ...
    def read_map_header(self) -> int: ...
    def skip(self) -> None: ...
    def tell(self) -> int: ...
    # Any, as in json.loads(): what comes out is for the caller to check.
    def unpack(self) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...

def packb(
    o: object,
    *,
    default: _Default | None = None,
    use_single_float: bool = False,
    use_bin_type: bool = True,
    strict_types: bool = False,
    datetime: bool = False,
    unicode_errors: str | None = None,
) -> bytes: ...
def unpackb(
    packed: Buffer,
    *,
    use_list: bool = True,
    raw: bool = False,
    timestamp: int = 0,
    strict_map_key: bool = True,
    object_hook: _ObjectHook | None = None,
    object_pairs_hook: _PairsHook | None = None,
    list_hook: _ListHook | None = None,
    unicode_errors: str | None = None,
    ext_hook: _ExtHook = ...,
    max_str_len: int = -1,
    max_bin_len: int = -1,
    max_array_len: int = -1,
    max_map_len: int = -1,
    max_ext_len: int = -1,
) -> Any: ...
