"""The studies of an Optuna storage, read without creating or changing anything in it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from bo.priors.storage_kinds import JOURNAL, URL, kind_of_storage

__all__ = ["load_studies", "numbers_of", "studies_of"]

# what pip calls the packages by which SQLAlchemy speaks to databases, where that is another name
PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "mysqldb": "mysqlclient"}


def studies_of(source: Any) -> list[optuna.Study]:
    """The studies that are given, or all studies of a storage, which may be given by its URL or file.

    Raises:
        TypeError: `source` is something else, or holds something else.
        FileNotFoundError, ValueError: as in `load_studies`.
    """
    if isinstance(source, str | Path):
        return load_studies(source)
    if isinstance(source, BaseStorage):
        return _studies(source)
    found = list(source) if isinstance(source, Iterable) else [source]
    for item in found:
        if not isinstance(item, optuna.Study):
            raise TypeError(
                "studies must be Optuna studies, a storage of them, or the URL of its database such as "
                f"'sqlite:///studies.db'; got {item!r}"
            )
    return found


def load_studies(source: str | Path) -> list[optuna.Study]:
    """All studies of a database such as `sqlite:///studies.db`, or of a file: one of SQLite, or a journal of Optuna's.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the database needs a package that is not installed.
        ValueError: the URL cannot be understood, or what it names cannot be read or is no storage of Optuna's.
    """
    from sqlalchemy.engine import URL as DatabaseURL

    kind = kind_of_storage(source)
    if kind is None:
        what = "is neither a database of SQLite nor a journal" if Path(source).exists() else "does not exist"
        raise (ValueError if Path(source).exists() else FileNotFoundError)(
            f"cannot read Optuna studies from {source}: the file {what}"
        )
    if kind == JOURNAL:
        return _studies(JournalStorage(JournalFileBackend(str(source))))
    return _of_database(
        str(source) if kind == URL else DatabaseURL.create("sqlite", database=str(source)).render_as_string()
    )


def _of_database(url: str) -> list[optuna.Study]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    shown = url
    try:
        parsed = make_url(url)
        shown = str(parsed)  # without the password
        if parsed.get_backend_name() == "sqlite":
            _require_file(shown, parsed.host, Path(parsed.database or ""))
        # Optuna's own default would add its tables to whatever database this is
        return _studies(RDBStorage(url, skip_table_creation=True))
    except NoSuchModuleError:
        raise ValueError(f"cannot read Optuna studies from {shown}: {_no_database(url.partition('://')[0])}") from None
    except ImportError:
        driver = parsed.get_dialect().driver
        raise ImportError(
            f"{shown} needs the package {driver}, which is not installed: pip install {PACKAGES.get(driver, driver)!r}"
        ) from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
        raise ValueError(
            f"cannot read Optuna studies from {shown}: {cause}. It must be a database that Optuna made, free to be read"
        ) from error


def _studies(storage: BaseStorage) -> list[optuna.Study]:
    return [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]


def _require_file(shown: str, host: str | None, path: Path) -> None:
    """Raises an error where there is no file of SQLite, which connecting would create."""
    if path.is_file():
        return
    way_out = f". A file takes three slashes: sqlite:///{host}" if host else ""
    what = "it is a directory" if path.is_dir() and not host and path.name else "the file does not exist"
    raise FileNotFoundError(f"cannot read Optuna studies from {shown}: {what}{way_out}")


def _no_database(scheme: str) -> str:
    if scheme == "postgres":
        return "write postgresql:// for postgres://"
    if scheme.startswith("redis"):
        return (
            "Redis holds a journal. In Python, give bo.TuningPrior.from_studies the storage "
            "JournalStorage(JournalRedisBackend(url)), and save the prior by bayesmeta.save"
        )
    return (
        f"there are no databases of the kind {scheme!r}; a URL is such as sqlite:///studies.db, postgresql://... or "
        "mysql://... Give a table by its path, after a download where it is elsewhere"
    )


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
