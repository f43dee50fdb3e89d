"""Tables from files of Arrow (.arrow, .feather) and Parquet, which hold names and types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import ipc, parquet

from recmodels.data.interactions import DataError
from recmodels.data.tables.packed import require_file, require_unpacked_size

ARROW_ENDINGS = (".parquet", ".arrow", ".feather")
BYTES_OF_A_VALUE = 4  # at least, once it is read


def read_arrow(path: Path) -> pd.DataFrame:
    """Read a table with its own names and types; bytes that are text in UTF-8 become text.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: damaged, not what its ending says, or made to fill a memory.
    """
    require_file(path)
    is_parquet = path.suffix.lower() == ".parquet"
    try:
        table = _read_parquet(path) if is_parquet else _read_ipc(path)
        table = pa.table([_plain(column) for column in table.columns], names=table.column_names)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's own trouble
        kind = "Parquet" if is_parquet else "Arrow"
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"{path.name}: is no {kind} file, or damaged ({reason}); write it again") from error
    if not len(table):
        raise DataError(f"{path.name}: there are no rows")
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return frame


def _read_parquet(path: Path) -> Any:
    with parquet.ParquetFile(path) as file:
        content = file.metadata
        groups = sum(content.row_group(number).total_byte_size for number in range(content.num_row_groups))
        require_unpacked_size(path, max(groups, content.num_rows * content.num_columns * BYTES_OF_A_VALUE))
        table = file.read()
        table.validate(full=True)
        return table


def _read_ipc(path: Path) -> Any:
    batches, size = [], 0
    with ipc.open_file(path) as file:
        for number in range(file.num_record_batches):
            batches.append(file.get_batch(number))
            batches[-1].validate(full=True)  # before it is used: its offsets may lead anywhere
            size += batches[-1].nbytes
            require_unpacked_size(path, size)
        return pa.Table.from_batches(batches, file.schema)


def _plain(column: Any) -> Any:
    """Return a column without a dictionary, and as text where its bytes are that."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        try:
            return column.cast(pa.string())
        except pa.ArrowInvalid:
            return column
    return column
