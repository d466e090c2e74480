"""A data set as TFDS prepares it in TFRecord files, written without TensorFlow."""

import json
import struct
from pathlib import Path

from helpers.photos import plain_photo

# Images in each file.
LENGTHS = (5, 0, 4, 2)
COUNT = sum(LENGTHS)
CLASSES = ["ant", "bee", "cow"]


def masked_checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value: int) -> bytes:
    """An integer as protocol buffers have it."""
    parts = []
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, data: bytes) -> bytes:
    """A field of bytes of a protocol buffer message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def example(image: bytes, label: int) -> bytes:
    """A serialized tf.train.Example, its fields out of order."""
    features = {
        "label": field(3, field(1, varint(label))),
        "weight": field(2, field(1, struct.pack("<f", 0.5))),
        "image": field(1, field(1, image)),
        "nothing": field(1, b""),
    }
    entries = [field(1, name.encode()) + field(2, f) for name, f in features.items()]
    return field(1, b"".join(field(1, entry) for entry in entries))


def picture(number: int) -> bytes:
    """A JPEG of one colour, which tells its number."""
    size = (60 + 7 * number, 50 + 3 * number)
    return plain_photo((20 * number, 255 - 20 * number, 128), size, quality=95)


def write_tfrecords(folder: Path) -> Path:
    """Fill a folder with eleven pictures in four files, one of them empty."""
    number = 0
    for shard, length in enumerate(LENGTHS):
        with open(folder / f"in-train.tfrecord-{shard:05d}-of-00004", "wb") as file:
            for _ in range(length):
                data = example(picture(number), number % 3)
                head = struct.pack("<Q", len(data))
                file.write(head + masked_checksum(head) + data + masked_checksum(data))
                number += 1
    info = {"name": "in", "fileFormat": "tfrecord", "splits": []}
    info["splits"].append({"name": "train", "shardLengths": [str(n) for n in LENGTHS]})
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "label.labels.txt").write_text("\n".join(CLASSES) + "\n")
    return folder
