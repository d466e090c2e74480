"""Files as torch.save makes them, of instructions that it would never write."""

import pickle
import struct
import zipfile


def dump(value):
    """The instructions that make a value."""
    return pickle.dumps(value, protocol=2)[2:-1]


def tensor(
    count, size, stride, offset=0, *, kind="FloatStorage", device="cpu", key="0"
):
    """The instructions that make a tensor over a storage of `count` numbers."""
    storage = b"(" + dump("storage") + f"ctorch\n{kind}\n".encode()
    storage += dump(key) + dump(device) + dump(count) + b"tQ"
    rest = dump(offset) + dump(size) + dump(stride) + dump(False) + dump({})
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def write_new(path, instructions, storage=b"", **records):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("file/data.pkl", b"\x80\x02" + instructions + b".")
        archive.writestr("file/data/0", storage)
        for name, content in records.items():
            archive.writestr(f"file/{name}", content)


def write_old(path, instructions, storage=b"", little_endian=True):
    header = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little_endian})
    parts = [pickle.dumps(part, protocol=2) for part in header]
    parts += [b"\x80\x02" + instructions + b"."]
    keys = ["0"] if storage else []
    parts += [pickle.dumps(keys, protocol=2)]
    if storage:
        parts += [struct.pack("<q", len(storage) // 4), storage]
    path.write_bytes(b"".join(parts))
