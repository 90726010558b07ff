"""The studies of an Optuna storage, read without creating or changing anything in it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage

__all__ = ["load_studies", "numbers_of", "studies_of"]


def studies_of(source: Any) -> list[optuna.Study]:
    """The studies that are given, or all studies of a storage, or of the database that a URL names.

    Raises:
        TypeError: `source` is something else, or holds something else.
        FileNotFoundError, ValueError: as in `load_studies`.
    """
    if isinstance(source, str):
        return load_studies(source)
    if isinstance(source, BaseStorage):
        return [optuna.load_study(study_name=name, storage=source) for name in optuna.get_all_study_names(source)]
    found = list(source) if isinstance(source, Iterable) else [source]
    for item in found:
        if not isinstance(item, optuna.Study):
            raise TypeError(
                "studies must be Optuna studies, a storage of them, or the URL of its database such as "
                f"'sqlite:///studies.db'; got {item!r}"
            )
    return found


def load_studies(url: str) -> list[optuna.Study]:
    """All studies of a database such as `sqlite:///studies.db`.

    Raises:
        FileNotFoundError: the URL names an SQLite file that does not exist.
        ValueError: the URL cannot be understood, or what it names cannot be read or is no storage of Optuna's.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    shown = url
    try:
        parsed = make_url(url)
        shown = str(parsed)  # without the password
        if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
            # connecting would create it
            raise FileNotFoundError(f"cannot read Optuna studies from {shown}: the file does not exist")
        # Optuna's own default would add its tables to whatever database this is
        storage = RDBStorage(url, skip_table_creation=True)
        return [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
        raise ValueError(
            f"cannot read Optuna studies from {shown}: {cause}. It must be a database that Optuna made, free to be read"
        ) from error


def numbers_of(study: str, user_attrs: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    """User attributes of a study that must be finite numbers.

    Raises:
        ValueError: one is missing, or something else.
    """
    for name in names:
        value = user_attrs.get(name)
        if not isinstance(value, bool | int | float) or not math.isfinite(value):
            raise ValueError(
                f"user attribute {name!r} of study {study!r} must be a finite number; got {value!r}. Set it "
                "by study.set_user_attr, or leave the feature out"
            )
    return [float(user_attrs[name]) for name in names]
