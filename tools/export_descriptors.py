"""Write the descriptors of a collection as a Parquet file, for other programs.

    python tools/export_descriptors.py workdirs/embed descriptors.parquet

A row per photo: `path` (text, as in index.csv), `status` ("ok") and `descriptor`, a
list of D numbers of the collection's own type. --all adds the photos whose descriptors
do not count any more, or that have none, with their status; --dtype float32 is for
programs that know no halves. The file's metadata has what made the descriptors. Needs
pyarrow.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from multigrain_jax.descriptors.export import FORMATS, export_parquet
from multigrain_jax.errors import InputError
from multigrain_jax.terminal import outlive_readers


def main(arguments: list[str] | None = None) -> int:
    """Export; returns the exit code: 0 done, 2 bad input (nothing is written)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", help="workdir of embed, or a descriptor folder")
    parser.add_argument("destination", help="file to write, .parquet")
    parser.add_argument(
        "--all", action="store_true", help="also photos that are gone or unreadable"
    )
    parser.add_argument(
        "--dtype", choices=FORMATS, help="of the numbers (default: as they are stored)"
    )
    parser.add_argument(
        "--rows-per-group",
        type=int,
        default=16_384,
        help="rows of a row group, which is what is in memory (default: 16384)",
    )
    options = parser.parse_args(arguments)
    try:
        if options.rows_per_group < 1:
            raise InputError(
                f"--rows-per-group: found {options.rows_per_group}, expected at least 1"
            )
        rows = export_parquet(
            options.database,
            Path(options.destination),
            dtype=options.dtype,
            only_live=not options.all,
            rows_per_group=options.rows_per_group,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{rows} photos written to {options.destination}")
    return 0


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
