"""`silo`: run a server, or see what one can do."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

import silo
from silo.errors import ConfigError, SiloError
from silo.settings import Loaded, Settings, describe, load
from silo.storage.template import has_placeholder


class Commands(click.Group):
    """The commands, of which some are imported only when somebody asks for them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(
            [*super().list_commands(ctx), "demo", "events", "job", "rebuild", "verify", "what-if", "worker"]
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "demo":
            from silo.cli.demo import demo

            return demo
        if cmd_name == "job":
            from silo.cli.job import job

            return job
        if cmd_name == "events":
            from silo.cli.events import events

            return events
        if cmd_name == "worker":
            from silo.cli.worker import worker

            return worker
        if cmd_name == "what-if":
            from silo.cli.what_if import what_if

            return what_if
        if cmd_name in ("rebuild", "verify"):
            from silo.cli import rows

            return rows.verify if cmd_name == "verify" else rows.rebuild
        return super().get_command(ctx, cmd_name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(silo.__version__, "-V", "--version", message="silo %(version)s")
def cli() -> None:
    """Silo: durable background jobs on object storage.

    \b
    Begin here:
      silo serve                        a server on 127.0.0.1:7450, its data in ./silo-data
      silo serve --data /var/lib/silo   the same, with its data elsewhere
      silo serve -c silo.toml           as the file says; see docs/configuration.md
      siloctl cluster info              what that server has
      silo worker shop:worker           a worker, here `worker` of shop.py; see docs/client.md
      silo job explain JOB              why a job is not running
      silo events tail                  what happens, as it happens
      silo verify                       whether what is stored is what the log gives
    """


@cli.command()
@click.option("-c", "--config", type=click.Path(dir_okay=False), help="Configuration file (TOML).")
@click.option("--data", type=click.Path(file_okay=False), help="Keep the data in this local directory.")
@click.option("--grpc-addr", metavar="IP:PORT", help="Listen here; port 0 takes any that is free.")
def serve(config: str | None, data: str | None, grpc_addr: str | None) -> None:
    """Run a server until it is told to stop (Ctrl-C or SIGTERM).

    Without a file it keeps eight shards in ./silo-data and listens on 127.0.0.1:7450.  What the flags say counts
    more than what the file says.

    \b
    Examples:
      silo serve
      silo serve --data /tmp/try --grpc-addr 127.0.0.1:7451
      silo serve -c silo.toml
    """
    loaded = load(config, os.environ)
    settings = overruled(loaded.settings, data=data, grpc_addr=grpc_addr)

    import logging

    # gRPC's core would put its own words, in its own form, between ours; what it has to say arrives here as errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from silo import logs
    from silo.server import process

    logs.configure(settings.logging.format)
    log = logging.getLogger("silo")
    for warning in loaded.warnings:
        log.warning("%s", warning)
    for difference in describe(settings):
        log.info("%s", difference)
    try:
        code = process.run(process.serve(settings))
    except SiloError as error:
        say(error)
        code = 1
    except Exception:
        log.exception("the server met a bug")
        code = 1
    process.leave(code)


def overruled(settings: Settings, *, data: str | None, grpc_addr: str | None) -> Settings:
    """The settings with what the flags say laid over them.  Raises ConfigError."""
    if data is not None:
        if "://" in data or has_placeholder(data):
            raise ConfigError(
                f"--data {data}: this takes a directory, without a shard placeholder; "
                "for a bucket, set database.backend and database.path in a configuration file"
            )
        if settings.database.backend != "fs":
            raise ConfigError(
                f'--data is a local directory, but the file has database.backend = "{settings.database.backend}"'
            )
        database = attrs.evolve(settings.database, path=str(Path(data) / "%shard%"))
        settings = attrs.evolve(settings, database=database)
    if grpc_addr is not None:
        try:
            server = attrs.evolve(settings.server, grpc_addr=grpc_addr)
        except ConfigError as error:
            raise ConfigError(f"--grpc-addr: {error}") from error
        settings = attrs.evolve(settings, server=server)
    return settings


@cli.command("validate-config")
@click.option(
    "-c", "--config", required=True, type=click.Path(dir_okay=False), help="Configuration file (TOML)."
)
def validate_config(config: str) -> None:
    """Say whether a server could use a configuration file, without starting one.

    \b
    Example:
      silo validate-config -c silo.toml
    """
    loaded = load(config, os.environ)
    say_valid(config, loaded)


def say_valid(config: str, loaded: Loaded) -> None:
    for warning in loaded.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"Config is valid: {config}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.  Exits with 0, with 1 if it failed, or with 2 if it was called wrongly."""
    try:
        cli.main(args=list(arguments) if arguments is not None else None, prog_name="silo")
    except SiloError as error:
        say(error)
        sys.exit(1)


def say(error: SiloError) -> None:
    """Tell a person why a command failed."""
    click.echo(f"{'Config error' if isinstance(error, ConfigError) else 'Error'}: {error}", err=True)


if __name__ == "__main__":
    main()
