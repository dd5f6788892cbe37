"""The settings table: name, default, unit, help. One frozen object, passed as an argument.

Precedence: flag > environment ``WETREAD_SECTION__KEY`` > ``wetread.toml`` of the project (the
current folder) > ``wetread.toml`` of the user > default. A key that nobody declared is an error.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from wetread.defaults import DEFAULT_READER
from wetread.errors import UsageError, expected

__all__ = [
    "ENVIRONMENT_PREFIX",
    "FILE_NAME",
    "ImagingSettings",
    "NodeRemote",
    "NodeRule",
    "NodeSettings",
    "PathSettings",
    "RuntimeSettings",
    "ServiceSettings",
    "Setting",
    "Settings",
    "load_settings",
    "settings_table",
    "user_file",
]

ENVIRONMENT_PREFIX = "WETREAD_"
FILE_NAME = "wetread.toml"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PathSettings(_Section):
    """Where things are kept."""

    readers: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("wetread") / "readers",
        description="Folder of imported and installed readers",
        json_schema_extra={"unit": "folder", "shown": "readers/ in the user's data folder"},
    )
    cache: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("wetread"),
        description="Folder of cached features; may be deleted at any time",
        json_schema_extra={"unit": "folder", "shown": "the user's cache folder"},
    )
    runs: Path = Field(
        default=Path("runs"),
        description="Folder of training runs, relative to the current folder",
        json_schema_extra={"unit": "folder"},
    )


class RuntimeSettings(_Section):
    """How the machine is used."""

    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Threads of this process; 0 means OMP_NUM_THREADS, else all cores",
        json_schema_extra={"unit": "threads"},
    )


class ImagingSettings(_Section):
    """How files become images."""

    budget_bytes: int = Field(
        default=512 << 20,
        ge=1 << 20,
        description="Largest decoded image; a file that claims more is refused before decoding",
        json_schema_extra={"unit": "bytes"},
    )


class ServiceSettings(_Section):
    """How ``wetread serve`` and ``wetread worker`` work."""

    root: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("wetread") / "service",
        description="Folder of the service: database, stored files, queue",
        json_schema_extra={"unit": "folder", "shown": "service/ in the user's data folder"},
    )
    database_url: str = Field(
        default="",
        description="Database, e.g. postgresql+psycopg://user@host/name; empty for SQLite in the root",
        json_schema_extra={"unit": "URL", "shown": "SQLite in the root"},
    )
    reader: str = Field(
        default=DEFAULT_READER,
        description="Reader of every uploaded image; others are asked for by name",
        json_schema_extra={"unit": "name or folder"},
    )
    segmenter: str = Field(
        default="lungs",
        description="Segmenter that draws organ masks on request",
        json_schema_extra={"unit": "name or folder"},
    )
    index: str = Field(
        default="",
        description="Index of past cases for similar ones; empty for none",
        json_schema_extra={"unit": "folder or URL", "shown": "none"},
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Host names under which the service is reached, beside loopback ones",
        json_schema_extra={"unit": "names", "shown": "none"},
    )
    upload_bytes: int = Field(
        default=2 << 30,
        ge=1 << 20,
        description="Largest upload, and the most that a ZIP may hold when unpacked",
        json_schema_extra={"unit": "bytes"},
    )
    upload_files: int = Field(
        default=2000,
        ge=1,
        description="Most files of one upload",
        json_schema_extra={"unit": "files"},
    )
    lease_s: float = Field(
        default=30.0,
        ge=1.0,
        description="After this time without a sign of life another worker takes over a job",
        json_schema_extra={"unit": "seconds"},
    )
    attempts: int = Field(
        default=5,
        ge=1,
        description="Times that a job is tried before it goes to the dead letters",
        json_schema_extra={"unit": "times"},
    )
    batch: int = Field(
        default=16,
        ge=1,
        description="Images that a worker reads together",
        json_schema_extra={"unit": "images"},
    )
    requests_per_s: float = Field(
        default=100.0,
        gt=0,
        description="Requests of one user or address on the long run",
        json_schema_extra={"unit": "per second"},
    )
    session_hours: float = Field(
        default=12.0,
        gt=0,
        description="Time after which a log-in ends",
        json_schema_extra={"unit": "hours"},
    )
    node: bool = Field(
        default=False,
        description="Also receive studies by DICOM, as the settings of node say, into the worklist",
        json_schema_extra={"unit": "yes or no"},
    )


_AE_TITLE = r"^[ -\[\]-~]*$"
"""What an AE title may hold (PS3.5 6.2): printable ASCII without the backslash."""
_HOST_ADDRESS = r"^[0-9a-fA-F:.]+$"


class NodeRemote(_Section):
    """Another system: by DIMSE (``host``, ``port``, ``title``), by DICOMweb (``web``) or FHIR (``fhir``).

    ``tls``: authority that its certificate must be from, PEM; None for no TLS. ``tls_certificate`` and ``tls_key``:
    what we show it, PEM. ``authorization``: file with the value of the Authorization header for ``web`` and ``fhir``,
    such as ``Bearer ...``. ``results``: kinds that it is sent.
    """

    title: str = Field(default="", max_length=16, pattern=_AE_TITLE)
    host: str = ""
    port: int = Field(default=0, ge=0, le=65535)
    web: str = Field(default="", pattern=r"^(https?://[^@\s]+)?$")
    fhir: str = Field(default="", pattern=r"^(https?://[^@\s]+)?$")
    authorization: Path | None = None
    tls: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    results: tuple[Literal["sr", "seg", "heat", "gsps", "sc", "pdf"], ...] = ("sr", "seg")


class NodeRule(_Section):
    """Which studies a reader reads, and where the results go; a condition that is empty always holds.

    ``segmenter``: also find the organs, for ``seg`` objects and sizes in the report. ``heat_maps`` False: no heat
    maps and boxes, which take more time than the answer. Ages in years.
    """

    name: str = Field(min_length=1)
    reader: str = Field(min_length=1)
    segmenter: str = ""
    heat_maps: bool = True
    to: tuple[str, ...] = ()
    operating_point: str | None = None
    senders: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    description_has: tuple[str, ...] = ()
    age_from: float | None = Field(default=None, ge=0, le=150)
    age_below: float | None = Field(default=None, gt=0, le=150)


class NodeSettings(_Section):
    """How ``wetread node`` receives, reads and answers."""

    folder: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("wetread") / "node",
        description="Folder of received objects, their index and the results",
        json_schema_extra={"unit": "folder", "shown": "node/ in the user's data folder"},
    )
    title: str = Field(
        default="WETREAD",
        min_length=1,
        max_length=16,
        pattern=_AE_TITLE,
        description="AE title of this node",
        json_schema_extra={"unit": "text"},
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on; beyond loopback needs TLS or node.open_network",
        json_schema_extra={"unit": "address"},
    )
    port: int = Field(
        default=11112, ge=0, le=65535, description="Port to listen on", json_schema_extra={"unit": "port"}
    )
    open_network: bool = Field(
        default=False,
        description="Listen beyond loopback without TLS, in a network that is closed by other means",
        json_schema_extra={"unit": "yes or no"},
    )
    any_called: bool = Field(
        default=False,
        description="Take associations for any called AE title, not only node.title",
        json_schema_extra={"unit": "yes or no"},
    )
    callers: dict[
        Annotated[str, Field(min_length=1, max_length=16, pattern=_AE_TITLE)],
        tuple[Annotated[str, Field(pattern=_HOST_ADDRESS)], ...],
    ] = Field(
        default_factory=dict,
        description="AE titles that may call, each with the addresses it may come from (none: any)",
        json_schema_extra={"unit": "table", "shown": "anyone"},
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="Certificate of this node, PEM",
        json_schema_extra={"unit": "file", "shown": "none"},
    )
    tls_key: Path | None = Field(
        default=None,
        description="Key of that certificate, PEM",
        json_schema_extra={"unit": "file", "shown": "none"},
    )
    tls_clients: Path | None = Field(
        default=None,
        description="Authority whose certificates callers must show, PEM",
        json_schema_extra={"unit": "file", "shown": "none"},
    )
    on_other_bytes: Literal["warn", "refuse"] = Field(
        default="warn",
        description="Answer to other content under a known instance UID; both are kept",
        json_schema_extra={"unit": "warn or refuse"},
    )
    reserve_bytes: int = Field(
        default=1 << 30,
        ge=0,
        description="Free disk space below which nothing is taken (status A700)",
        json_schema_extra={"unit": "bytes"},
    )
    object_bytes: int = Field(
        default=4 << 30, ge=1 << 10, description="Largest object that is taken", json_schema_extra={"unit": "bytes"}
    )
    associations: int = Field(
        default=100, ge=1, le=1000, description="Associations at once", json_schema_extra={"unit": "associations"}
    )
    per_address: int = Field(
        default=80,
        ge=1,
        le=1000,
        description="Associations at once from one address",
        json_schema_extra={"unit": "associations"},
    )
    idle_s: float = Field(
        default=60, ge=1, description="An association idle for so long is closed", json_schema_extra={"unit": "s"}
    )
    quiet_s: float = Field(
        default=30,
        ge=0,
        le=86400,
        description="A study is complete when quiet for so long",
        json_schema_extra={"unit": "s"},
    )
    remotes: dict[str, NodeRemote] = Field(
        default_factory=dict,
        description="Other systems by name: title, host, port, web, fhir, authorization, tls, results",
        json_schema_extra={"unit": "tables", "shown": "none"},
    )
    worklists: tuple[str, ...] = Field(
        default=(),
        description="Remotes whose worklist (UPS) this node asks for work",
        json_schema_extra={"unit": "names of remotes", "shown": "none"},
    )
    rules: tuple[NodeRule, ...] = Field(
        default=(),
        description="Rules in order: name, reader, segmenter, heat_maps, to, and conditions on the study",
        json_schema_extra={"unit": "tables", "shown": "none"},
    )


class Settings(BaseSettings):
    """All settings, by section."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=False,
    )

    # Factories: the user's folders are looked up when settings are loaded, not on import.
    paths: PathSettings = Field(default_factory=PathSettings)
    runtime: RuntimeSettings = Field(default_factory=RuntimeSettings)
    imaging: ImagingSettings = Field(default_factory=ImagingSettings)
    service: ServiceSettings = Field(default_factory=ServiceSettings)
    node: NodeSettings = Field(default_factory=NodeSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, project file, user file; the first that has a key wins."""
        files = [TomlConfigSettingsSource(settings_cls, file) for file in _files()]
        return (init_settings, env_settings, *files)


@dataclass(frozen=True)
class Setting:
    """One row of the table. ``key`` is dotted; ``default`` as a person reads it."""

    key: str
    default: str
    unit: str
    help: str

    @property
    def environment(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.key.upper().replace(".", "__")


def settings_table() -> tuple[Setting, ...]:
    """Every setting, in the order of the sections."""
    return tuple(
        _row(f"{section}.{name}", field)
        for section, part in Settings.model_fields.items()
        for name, field in _section_type(part.annotation).model_fields.items()
    )


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Gather the settings; ``flags`` are by dotted key, None meaning that the flag was not given.

    Raises:
        UsageError: an unknown key (the nearest one is suggested), a value of the wrong kind, or a
            settings file that is not TOML. The message says where the key stands.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    _refuse_unknown(given, "a flag")
    for file in _files():
        _refuse_unknown(_flat(_toml(file)), file.name if file.parent == Path() else str(file))
    _refuse_unknown_environment(os.environ)
    try:
        values: dict[str, Any] = _nested(given)
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        got = f"{first['input']!r} ({first['msg'][:1].lower()}{first['msg'][1:]})"
        raise UsageError(expected(f"a fitting value of '{key}'", got, "correct it")) from error


def user_file() -> Path:
    """The settings file of this user, which need not exist."""
    return platformdirs.user_config_path("wetread") / FILE_NAME


def _files() -> tuple[Path, ...]:
    return tuple(file for file in (Path(FILE_NAME), user_file()) if file.is_file())


def _row(key: str, field: Any) -> Setting:
    extra = field.json_schema_extra
    shown = extra.get("shown") or ("" if field.default is PydanticUndefined else str(field.default))
    return Setting(key, shown, extra["unit"], field.description)


def _section_type(annotation: Any) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    raise TypeError(f"expected a section in Settings, got {annotation}; declare settings in sections")


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(expected(f"TOML in {file}", str(error), "correct that line")) from error


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and not prefix:
            flat.update(_flat(value, f"{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, name = key.split(".")
        nested.setdefault(section, {})[name] = value
    return nested


def _refuse_unknown(keys: Iterable[str], where: str) -> None:
    known = [setting.key for setting in settings_table()]
    for key in keys:
        if key not in known:
            raise UsageError(expected(f"a known setting in {where}", f"'{key}'", _nearest(key, known)))


def _refuse_unknown_environment(environment: Iterable[str]) -> None:
    """A name that only begins like ours is somebody else's; one that names a section is ours."""
    known = [setting.environment for setting in settings_table()]
    sections = tuple(ENVIRONMENT_PREFIX + section.upper() + "_" for section in Settings.model_fields)
    for name in environment:
        upper = name.upper()
        ours = upper.startswith(sections) or (upper.startswith(ENVIRONMENT_PREFIX) and "__" in upper)
        if ours and upper not in known:
            raise UsageError(expected("a known setting in the environment", f"'{name}'", _nearest(upper, known)))


def _nearest(key: str, known: list[str]) -> str:
    leaves = {name.rsplit(".", 1)[-1]: name for name in known}
    near = difflib.get_close_matches(key, [*known, *leaves], n=1, cutoff=0.5)
    near = [leaves.get(name, name) for name in near]
    return f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(known)}"
