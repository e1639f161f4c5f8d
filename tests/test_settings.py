"""A configuration file is filled in, read strictly, and answered with sentences that name what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from silo.config_file import substitute
from silo.errors import ConfigError
from silo.settings import (
    Coordination,
    Database,
    Loaded,
    MemoryCache,
    Server,
    Settings,
    Wal,
    describe,
    host_and_port,
    load,
)

ROOT = Path(__file__).parent.parent


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    Path("silo.toml").write_text(text, encoding="utf-8")
    return load("silo.toml", environ or {})


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(text)
    return str(refused.value)


pytestmark = pytest.mark.usefixtures("directory")


# --- defaults -----------------------------------------------------------------------------------------------


def test_without_a_file_everything_is_local() -> None:
    settings = load(None, {}).settings

    assert (settings.database.backend, settings.database.path) == ("fs", "./silo-data/%shard%")
    assert settings.coordination.initial_shard_count == 8
    assert (settings.server.grpc_addr, settings.webui.addr) == ("127.0.0.1:7450", "127.0.0.1:8080")


def test_an_empty_file_is_as_no_file() -> None:
    assert read("") == load(None, {})


def test_a_file_changes_what_it_names_and_nothing_else() -> None:
    loaded = read(
        """
        [server]
        grpc_addr = "[::1]:9000"
        dev_mode = true
        [database]
        backend = "s3"
        path = "s3://jobs/silo/{shard}"
        options = { region = "eu-central-1", allow_http = true }
        slatedb = { l0_max_ssts = 4, garbage_collector_options = { wal_options = { interval = "1s" } } }
        [database.wal]
        backend = "fs"
        path = "/wal/%shard%"
        [database.memory_cache]
        block_cache_bytes = 1048576
        [coordination]
        placement_rings = ["default", "big"]
        """
    )

    assert loaded == Loaded(
        Settings(
            server=Server(grpc_addr="[::1]:9000", dev_mode=True),
            database=Database(
                backend="s3",
                path="s3://jobs/silo/{shard}",
                options={"region": "eu-central-1", "allow_http": "true"},
                slatedb={
                    "l0_max_ssts": 4,
                    "garbage_collector_options": {"wal_options": {"interval": "1s"}},
                },
                wal=Wal(backend="fs", path="/wal/%shard%"),
                memory_cache=MemoryCache(block_cache_bytes=1048576),
            ),
            coordination=Coordination(placement_rings=("default", "big")),
        )
    )


def test_an_empty_text_is_as_none_where_none_is_possible() -> None:
    loaded = read(
        '[coordination]\nnode_id = "${NODE}"\nadvertised_grpc_addr = ""\n[gubernator]\naddress = ""'
    )

    assert loaded == Loaded(Settings())


def test_an_empty_token_protects_nothing_and_is_reported() -> None:
    loaded = read('[server]\nauth_token = "${SILO_AUTH_TOKEN}"')

    assert loaded.settings.server.auth_token is None
    assert loaded.warnings == ("silo.toml: [server] auth_token is empty, so callers need no token",)


# --- environment --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "filled_in"),
    [
        pytest.param("prefix-${SET}-suffix", "prefix-value-suffix", id="a variable"),
        pytest.param("prefix-${UNSET}-suffix", "prefix--suffix", id="one that is not set is empty"),
        pytest.param("${UNSET:-default}", "default", id="a default"),
        pytest.param("${SET:-default}", "value", id="a default that is not needed"),
        pytest.param("${EMPTY:-default}", "", id="set and empty stays empty"),
        pytest.param("${UNSET:-}", "", id="an empty default"),
        pytest.param("${UNSET:-a:-b}", "a:-b", id="a default with the separator in it"),
        pytest.param("cost is $50", "cost is $50", id="a plain dollar"),
        pytest.param("$SET", "$SET", id="a name without braces"),
        pytest.param("prefix-${UNCLOSED-suffix", "prefix-${UNCLOSED-suffix", id="unclosed"),
        pytest.param("${UNCLOSED\n${SET}", "${UNCLOSED\nvalue", id="unclosed, on a line of its own"),
        pytest.param("# ${SET}", "# value", id="in a comment"),
        pytest.param("${UNSET:-${SET}}", "${SET}", id="no nesting"),
        pytest.param("${QUOTING}", '"', id="nothing is quoted"),
    ],
)
def test_variables_are_filled_in_before_anything_else(text: str, filled_in: str) -> None:
    assert substitute(text, {"SET": "value", "EMPTY": "", "QUOTING": '"'}) == filled_in


def test_values_from_the_environment_are_parsed_as_part_of_the_file() -> None:
    loaded = read("[coordination]\ninitial_shard_count = ${SHARDS:-4}", {"SHARDS": "12"})

    assert loaded.settings.coordination.initial_shard_count == 12


# --- keys that nobody reads ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        pytest.param(
            "[server]\ngprc_addr = 1",
            "[server] gprc_addr is not a setting and is ignored; did you mean grpc_addr?",
            id="a misspelt key",
        ),
        pytest.param(
            "[servr]\ndev_mode = true",
            "[servr] is not a section and is ignored; did you mean [server]?",
            id="a misspelt section",
        ),
        pytest.param(
            "[coordination]\nnum_shards = 4",
            "[coordination] num_shards is not a setting and is ignored; did you mean initial_shard_count?",
            id="the name that other documents give",
        ),
        pytest.param(
            'grpc_addr = "0.0.0.0:1"',
            "grpc_addr is not a setting and is ignored; did you mean [server] grpc_addr?",
            id="a key before the first section",
        ),
        pytest.param(
            '[database]\nbackend = "fs"\npath = "/%shard%"\nauth_token = "x"',
            "[database] auth_token is not a setting and is ignored; did you mean [server] auth_token?",
            id="a key in the wrong section",
        ),
        pytest.param(
            '[database]\nbackend = "fs"\npath = "/%shard%"\n[database.cache]',
            "[database.cache] is not a section and is ignored",
            id="a section like no other",
        ),
        pytest.param(
            'addr = "0.0.0.0:1"',
            "addr is not a setting and is ignored; did you mean [webui] addr or [metrics] addr?",
            id="a key of several sections before the first",
        ),
        pytest.param(
            "[server]\nzzz = 1", "[server] zzz is not a setting and is ignored", id="a key like no other"
        ),
        pytest.param(
            '[database]\nbackend = "fs"\npath = "/%shard%"\nhydrate_all_at_startup = true',
            "[database] hydrate_all_at_startup has no effect here: "
            "a shard reads what it needs when it needs it",
            id="a key of the older server",
        ),
    ],
)
def test_a_key_that_nobody_reads_is_accepted_and_reported(text: str, warning: str) -> None:
    assert read(text).warnings == (f"silo.toml: {warning}",)


def test_a_setting_without_effect_yet_is_reported_once_it_is_changed() -> None:
    text = """
    [server]
    statement_timeout_ms = 1
    [webui]
    addr = "0.0.0.0:80"
    [metrics]
    enabled = false
    """

    assert read(text).warnings == ("silo.toml: [webui] addr has no effect in this release",)
    assert read("[server]\nstatement_timeout_ms = 5000\n[webui]\nenabled = false").warnings == ()


def test_what_is_handed_on_to_slatedb_is_not_judged() -> None:
    text = '[database]\nbackend = "memory"\npath = "/%shard%"\n[database.slatedb]\nanything = { at = "all" }'

    assert read(text).warnings == ()


# --- mistakes -----------------------------------------------------------------------------------------------

BOTH = "the section must give `backend` and `path`"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        pytest.param(
            "[server]\ndev_mode = 'no'", '[server] dev_mode = "no": expected true or false', id="a boolean"
        ),
        pytest.param(
            "[server]\ndev_mode = 0", "[server] dev_mode = 0: expected true or false", id="no boolean"
        ),
        pytest.param(
            "[database]\nbackend = 'fs'\npath = '/%shard%'\ncheckpoint_rows = '9'",
            '[database] checkpoint_rows = "9": expected an integer',
            id="an integer in quotes",
        ),
        pytest.param(
            "[server]\nslow_query_log_ms = 1.5",
            "[server] slow_query_log_ms = 1.5: expected an integer",
            id="a fraction",
        ),
        pytest.param(
            "[server]\nslow_query_log_ms = true",
            "[server] slow_query_log_ms = true: expected an integer",
            id="true is not 1",
        ),
        pytest.param(
            "[server]\ngrpc_addr = 7450", "[server] grpc_addr = 7450: expected a string", id="a string"
        ),
        pytest.param(
            "[server]\nauth_token = 7450",
            "[server] auth_token = (not shown): expected a string",
            id="a secret",
        ),
        pytest.param(
            "[coordination]\nplacement_rings = 'big'",
            '[coordination] placement_rings = "big": expected a list of strings',
            id="a list",
        ),
        pytest.param(
            "[database]\nbackend = 's3'\npath = 's3://b/%shard%'\noptions = { region = ['x'] }",
            "[database] options = (not shown): expected a table of strings",
            id="a table of strings",
        ),
        pytest.param(
            "[database]\nbackend = 'fs'\npath = '/%shard%'\nslatedb = 1",
            "[database] slatedb = 1: expected a table",
            id="a table",
        ),
        pytest.param("server = 1", "server = 1: expected a section, [server]", id="a section"),
        pytest.param(
            "[server]\ngrpc_addr = 'localhost:7450'",
            '[server] grpc_addr = "localhost:7450": '
            "expected an IP address with a port, such as 127.0.0.1:7450",
            id="a host name",
        ),
        pytest.param(
            "[coordination]\ninitial_shard_count = 0",
            "[coordination] initial_shard_count = 0: expected an integer from 1 to 10000",
            id="out of range",
        ),
        pytest.param(
            "[logging]\nformat = 'xml'",
            '[logging] format = "xml": expected one of "text", "json"',
            id="a word",
        ),
        pytest.param(
            "[coordination]\nbackend = 'zookeeper'",
            '[coordination] backend = "zookeeper": expected one of "none", "etcd", "k8s"',
            id="a backend that does not exist",
        ),
        pytest.param(
            "[coordination]\nbackend = 'etcd'",
            '[coordination] backend = "etcd": not available in this release yet; '
            'expected "none", which is one server',
            id="etcd",
        ),
        pytest.param(
            "[coordination]\nbackend = 'k8s'",
            '[coordination] backend = "k8s": not available in this release yet; '
            'expected "none", which is one server',
            id="k8s",
        ),
        pytest.param(
            "[database]\npath = '/%shard%'", f"[database]: missing field `backend`; {BOTH}", id="no backend"
        ),
        pytest.param("[database]\nbackend = 'fs'", f"[database]: missing field `path`; {BOTH}", id="no path"),
        pytest.param(
            "[database]\nbackend = 'fs'\npath = '/%shard%'\n[database.wal]\npath = '/wal'",
            f"[database.wal]: missing field `backend`; {BOTH}",
            id="no backend for the WAL",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_expected(text: str, mistake: str) -> None:
    assert refusal(text) == f"silo.toml: {mistake}"


def test_mistakes_are_told_together() -> None:
    text = "[server]\ndev_mode = 1\ngrpc_addr = 2\n[coordination]\ninitial_shard_count = 0"

    assert refusal(text).splitlines() == [
        "silo.toml: [server] grpc_addr = 2: expected a string",
        "silo.toml: [server] dev_mode = 1: expected true or false",
        "silo.toml: [coordination] initial_shard_count = 0: expected an integer from 1 to 10000",
    ]


def test_a_section_made_in_code_is_held_to_the_same_bounds() -> None:
    with pytest.raises(ConfigError, match=r"^checkpoint_rows = 0: expected an integer of at least 1$"):
        Database(checkpoint_rows=0)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^absent\.toml: No such file or directory$"):
        load("absent.toml", {})


def test_a_file_that_is_not_toml_is_refused_with_the_place() -> None:
    assert re.fullmatch(r"silo\.toml: .*\(at line 2, column 12\)", refusal("[server]\ngrpc_addr =\n"))


def test_a_file_that_is_not_utf_8_is_refused() -> None:
    Path("silo.toml").write_bytes(b"# \xff\n")

    with pytest.raises(ConfigError, match=r"^silo\.toml: 'utf-8' codec can't decode"):
        load("silo.toml", {})


# --- paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["database", "database.wal"])
def test_a_path_that_would_mix_up_shards_is_refused_when_it_is_read(section: str) -> None:
    text = "[database]\nbackend = 'fs'\npath = '/data/%shard%'\n[database.wal]\nbackend = 'fs'\npath = '/wal/%shard%'"
    head, name, rest = text.partition(f"[{section}]")

    assert refusal(head + name + rest.replace("/%shard%", "", 1)) == (
        f"silo.toml: [{section}] path: database template path must contain a shard placeholder "
        f"(%shard% or {{shard}}), got: /{'data' if section == 'database' else 'wal'}"
    )


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:7450", ("127.0.0.1", 7450)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:8080", ("::1", 8080)),
    ],
)
def test_a_socket_address_has_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert host_and_port(address) == parts


@pytest.mark.parametrize(
    "address",
    ["", "7450", ":7450", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "::1:80", "[127.0.0.1]:1", "a:1"],
)
def test_anything_else_is_no_socket_address(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        host_and_port(address)


# --- what people read ---------------------------------------------------------------------------------------


def test_a_description_has_what_differs_from_the_defaults_and_no_secrets() -> None:
    settings = Settings(
        server=Server(auth_token="hush"),
        database=Database(
            fsync=False, options={"secret_access_key": "hush"}, wal=Wal(backend="fs", path="/wal/%shard%")
        ),
    )

    assert describe(settings) == [
        "server.auth_token = (set)",
        "database.options = (set)",
        "database.fsync = false",
        'database.wal.backend = "fs"',
        'database.wal.path = "/wal/%shard%"',
    ]
    assert "hush" not in repr(settings)


def test_the_example_in_the_documentation_is_valid() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    example = page.partition("```toml\n")[2].partition("```")[0]
    loaded = read(example, {"SILO_AUTH_TOKEN": "secret"})

    assert loaded.warnings == ()
    assert loaded.settings.coordination.advertised_grpc_addr == "127.0.0.1:7450"


def test_the_documentation_is_what_the_settings_say() -> None:
    command = [sys.executable, "-m", "tools.gen_config_docs", "--check"]
    check: Any = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert (check.returncode, check.stderr) == (0, "")
