"""Parquet files as files of JSON lines, which are read one line at a time.

A row of a Parquet file cannot be read without the rows around it, often thousands. So each host writes the wanted
columns of a file once, as JSON lines in the cache folder, and all its processes read those.
"""

import hashlib
import json
import os
from typing import Dict, Iterator, Optional

from lm_human_preferences.remote.cache import cache_folder
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import written_whole
from lm_human_preferences.utils.locks import locked

ROWS_AT_ONCE = 1024
_VERSION = 1  # part of the name of a kept file; raise it when the lines change


def as_json_lines(path: str, columns: Dict[str, str], optional: Optional[str] = None) -> str:
    """Return the path of a file of JSON lines with some columns of the Parquet file at `path`.

    Args:
      columns: {name in the lines: column}. Each row must have a text in them.
      optional: a name among them whose texts may be missing.

    Raises:
      UserError: a column is not there, or a row has no text in it, or the file is no Parquet file.
    """
    status = os.stat(path)
    key = (os.path.realpath(path), status.st_size, status.st_mtime_ns, sorted(columns.items()), optional, _VERSION)
    lines = os.path.join(cache_folder('parquet'), hashlib.sha256(repr(key).encode()).hexdigest()[:32] + '.jsonl')
    with locked(lines):
        if not os.path.exists(lines):
            with written_whole(lines) as file:
                for row in _rows(path, columns, optional):
                    file.write(json.dumps(row) + '\n')
    return lines


def _rows(path: str, columns: Dict[str, str], optional: Optional[str]) -> Iterator[Dict[str, str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with open(path, 'rb') as source:
            file = pyarrow.parquet.ParquetFile(source)
            missing = [column for column in columns.values() if column not in file.schema_arrow.names]
            if missing:
                raise UserError(
                    f'{path}: no column {missing[0]!r}: its columns are {", ".join(file.schema_arrow.names)}'
                )
            number = 0
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=sorted(set(columns.values()))):
                values = {column: batch.column(i).to_pylist() for i, column in enumerate(batch.schema.names)}
                for i in range(batch.num_rows):
                    row = {name: values[column][i] for name, column in columns.items()}
                    for name, text in row.items():
                        if not isinstance(text, str) and not (text is None and name == optional):
                            kind = 'empty' if text is None else 'no text'
                            raise UserError(f'{path}: row {number}: column {columns[name]!r} is {kind}')
                    yield row
                    number += 1
    except pyarrow.ArrowException as error:
        raise UserError(f'{path}: not a Parquet file that can be read: {str(error).splitlines()[0]}') from None
