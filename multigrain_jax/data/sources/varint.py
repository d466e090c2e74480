"""Whole numbers of any length in bytes, as protocol buffers and Thrift write them."""


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """A number, seven bits a byte and the lowest first, and where the next one begins.

    Args:
        data: the bytes.
        position: where the number begins.

    Raises:
        IndexError: the bytes end within it.
        ValueError: it has more than 64 bits.
    """
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("an integer without an end")
