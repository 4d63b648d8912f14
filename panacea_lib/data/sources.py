"""Read JSONL, JSONL.gz, CSV, Parquet and hub data sets through `datasets`, row by row.

Whatever is wrong with a file or its mapped columns is an `InputError`; what a row's fields must
hold is checked in `panacea_lib.data.rows`.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panacea_lib.data.cells import Row, RowPlace, Values
from panacea_lib.data.rows import label_columns, mapped_columns
from panacea_lib.data.text_files import check_text, csv_shape
from panacea_lib.errors import InputError
from panacea_lib.problem_data import FileData, HubData
from panacea_lib.problem_files import expand_hub_id, expand_path, is_local

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = (".jsonl", ".jsonl.gz", ".csv", ".parquet")


def data_file(data: FileData, problem_file: Path) -> Path:
    """The file that the problem names; InputError if it is missing, empty or of no known format."""
    path = expand_path(data.path, problem_file)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(
            f"{path}: the data file {what}; mend data.path in {problem_file} (now {data.path!r})"
        )
    if file_format(path) is None:
        raise InputError(
            f"{path}: its ending tells no format; convert it to one of {', '.join(FORMATS)}"
        )
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty; it needs a row per pair or response")
    return path


def no_rows(where: str) -> InputError:
    """The error for a source that is readable and holds nothing."""
    return InputError(f"{where}: there are no rows; it needs a row per pair or response")


def file_format(path: Path) -> str | None:
    """One of FORMATS, by the ending."""
    return next((ending for ending in FORMATS if path.name.lower().endswith(ending)), None)


def source_name(data: FileData | HubData, problem_file: Path) -> str:
    """What errors call the data: the file's path, or the data set's id."""
    if isinstance(data, FileData):
        return str(expand_path(data.path, problem_file))
    folder = f", {data.data_dir}" if data.data_dir else ""
    return f"{data.dataset}{folder} ({data.hub_split})"


def read_rows(data: FileData | HubData, problem_file: Path) -> Iterator[Row]:
    """The rows that `data` names, at most `limit` of them; InputError for whatever is bad."""
    if isinstance(data, HubData):
        rows = _read_hub(data, problem_file)
    else:
        path = data_file(data, problem_file)
        readers = {".csv": _read_csv, ".parquet": _read_parquet}
        rows = readers.get(file_format(path) or "", _read_jsonl)(path, data)
    return islice(rows, data.limit)


def _read_jsonl(path: Path, data: FileData) -> Iterator[Row]:
    check_text(path)
    # Not load_dataset("json"): datasets 5.2 infers types there, which turns texts that look like
    # dates into other texts and gives no line numbers. As "text" every line arrives as it is.
    with _loaded("text", path) as dataset:
        for number, values in enumerate(_iterate(dataset, str(path)), start=1):
            if values["text"].strip("\ufeff \t\r"):
                place = RowPlace(str(path), "line", number)
                yield place, _parse_line(values["text"].removeprefix("\ufeff"), place)


def _parse_line(line: str, place: RowPlace) -> Values:
    where = f"{place.source}, line {place.number}"
    try:
        values = json.loads(line, object_pairs_hook=_no_double_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: this is not JSON ({error}); write one object a line") from error
    if not isinstance(values, dict):
        raise InputError(
            f"{where}: a {type(values).__name__}, not an object; write one "
            '{"column": value, ...} a line'
        )
    return values


def _no_double_keys(pairs: list[tuple[str, Any]]) -> Values:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("one key stands twice")
    return values


def _read_csv(path: Path, data: FileData) -> Iterator[Row]:
    from datasets import Features, Value

    check_text(path)
    shape = csv_shape(path)
    _check_columns(str(path), shape.header, data)
    if not shape.lines:
        raise no_rows(str(path))
    labels = {_column_of(name, shape.header) for name in label_columns(data.columns)}
    # Everything as text: pandas would read a response "NA" as missing and "01" as 1.
    features = Features({name: Value("string") for name in shape.header})
    with _loaded("csv", path, features=features, keep_default_na=False) as dataset:
        if len(dataset) != len(shape.lines):
            raise InputError(
                f"{path}: {len(shape.lines)} records, of which pandas reads {len(dataset)}; "
                "write the file again with a quote around every field"
            )
        for number, values in zip(shape.lines, _iterate(dataset, str(path)), strict=True):
            place = RowPlace(str(path), "line", number)
            yield (
                place,
                {k: _cell(v, k, place) if k in labels else v for k, v in values.items()},
            )


def _cell(text: str | None, column: str, place: RowPlace) -> Any:
    """What a CSV cell of scores means: nothing, a number, a JSON list or object, or a word."""
    text = (text or "").strip()
    if not text:
        return None
    if text[0] in "[{":
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            remedy = "write a number, or a JSON list or object"
            raise place.error(column, f"this is not JSON ({error})", remedy) from error
    try:
        return float(text)
    except ValueError:
        return text  # "a", "b" or "tie"; anything else is refused where it is used


def _read_parquet(path: Path, data: FileData) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as parquet:
            names, size = parquet.schema_arrow.names, parquet.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path}: this is not Parquet, or damaged ({_first_line(error)}); write it again"
        ) from error
    columns = _check_columns(str(path), names, data)
    if not size:
        raise no_rows(str(path))
    with _loaded("parquet", path, columns=columns) as dataset:
        for number, values in enumerate(_iterate(dataset, str(path)), start=1):
            yield RowPlace(str(path), "row", number), values


def _read_hub(data: HubData, problem_file: Path) -> Iterator[Row]:
    from datasets import load_dataset

    name = source_name(data, problem_file)
    location = expand_hub_id(data.dataset, problem_file)
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        try:
            dataset = load_dataset(
                location,
                name=data.subset,
                data_dir=data.data_dir,
                split=data.hub_split,
                revision=None if is_local(data.dataset) else data.revision,
                # A directory may change; what comes from the hub stays in the user's own cache.
                cache_dir=scratch if is_local(data.dataset) else None,
            )
        except Exception as error:  # the hub, its network and every format raise their own kinds
            raise InputError(
                f"{name}: cannot be loaded ({_first_line(error)}); check data.dataset, revision, "
                "subset, data_dir and hub_split, and the network"
            ) from error
        columns = _check_columns(name, dataset.column_names, data)
        for number, values in enumerate(_iterate(dataset.select_columns(columns), name), start=1):
            yield RowPlace(name, "row", number), values


def _check_columns(where: str, available: list[str], data: FileData | HubData) -> list[str]:
    """The columns that the mapping needs, of those the source has."""
    for name in mapped_columns(data.columns):
        if _column_of(name, available) not in available:
            raise InputError(
                f"{where}, row 1, column {name!r}: there is no such column (there are "
                f"{', '.join(map(repr, available))}); mend data.columns in the problem"
            )
    needed = [_column_of(name, available) for name in mapped_columns(data.columns)]
    return list(dict.fromkeys(needed))


def _column_of(name: str, available: list[str]) -> str:
    """The column that a mapped name reads: itself, or the first part of a dotted path."""
    return name if name in available else name.split(".")[0]


@contextmanager
def _loaded(kind: str, path: Path, **options: Any) -> "Iterator[Dataset]":
    """The file as a data set whose cache is gone afterwards, so that nothing goes stale."""
    from datasets import load_dataset

    with tempfile.TemporaryDirectory() as scratch, _quiet():
        # A plain name: datasets reads *, ?, [] and :: in a path as patterns.
        link = Path(scratch) / f"data{file_format(path)}"
        link.symlink_to(path.resolve())
        try:
            dataset = load_dataset(
                kind, data_files=str(link), split="train", cache_dir=scratch, **options
            )
        except Exception as error:  # pandas, pyarrow and datasets raise dozens of kinds
            cause = error.__cause__ or error
            raise InputError(
                f"{path}: cannot be read ({_first_line(cause)}); write the file again"
            ) from error
        yield dataset  # pyright: ignore[reportReturnType]


def _iterate(dataset: "Dataset", where: str) -> Iterator[Values]:
    if not len(dataset):
        raise no_rows(where)
    for start in range(0, len(dataset), 1000):
        try:
            batch = dataset[start : start + 1000]
        except UnicodeDecodeError as error:  # Parquet does not check its texts when it reads them
            raise _not_utf8(dataset, where, start) from error
        for row in zip(*batch.values(), strict=True):
            yield dict(zip(batch, row, strict=True))


def _not_utf8(dataset: "Dataset", where: str, start: int) -> InputError:
    """The error for the first bad text at or after `start`."""
    for index in range(start, len(dataset)):
        for column in dataset.column_names:
            try:
                dataset.data.column(column)[index].as_py()
            except UnicodeDecodeError as error:
                return RowPlace(where, "row", index + 1).error(
                    column, f"a text is not UTF-8 ({error.reason})", "write the file as UTF-8"
                )
    return InputError(f"{where}, after row {start}: a text is not UTF-8; write the file as UTF-8")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of datasets: the stages have their own."""
    import datasets

    before = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            datasets.enable_progress_bars()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
