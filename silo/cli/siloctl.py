"""`siloctl`: look after a running cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

import silo
from silo.cli.ctl.cluster import cluster, tenant
from silo.cli.ctl.connection import Failed, Target, global_flags, pass_target
from silo.cli.ctl.inside import dump_tasks, heap_profile, profile
from silo.cli.ctl.jobs import job
from silo.cli.ctl.shards import shard
from silo.cli.ctl.sql import query
from silo.errors import ConfigError
from silo.settings import load


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(silo.__version__, "-V", "--version", message="siloctl %(version)s")
@global_flags
def cli() -> None:
    """Look after a running Silo cluster.

    \b
    Begin here:
      siloctl cluster info                       which shards there are, and who has them
      siloctl tenant locate acme                 where a tenant's jobs are
      siloctl job get SHARD JOB --attempts       what became of a job
      siloctl -a http://silo-3:7450 --json ...   another node, and an answer for machines

    The flags below may stand before or behind the command.
    """


@cli.command("validate-config")
@click.option("-c", "--config", required=True, help="Configuration file (TOML).")
@global_flags
@pass_target
def validate_config(target: Target, config: str) -> None:
    """Say whether a server could use a configuration file (no server needed)."""
    try:
        loaded = load(config, os.environ)
    except ConfigError as error:
        target.show(
            {"status": "invalid", "config_path": config, "error": str(error)}, f"Config error: {error}"
        )
        raise Failed(f"Config validation failed: {error}") from error
    for warning in loaded.warnings:
        click.echo(f"Warning: {warning}", err=True)
    target.show({"status": "valid", "config_path": config}, f"Config is valid: {config}")


for command in (cluster, job, query, shard, tenant, profile, heap_profile, dump_tasks):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.  Exits with 0, with 1 if it failed, or with 2 if it was called wrongly."""
    # What gRPC's core has to say arrives here as an error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    cli.main(args=list(arguments) if arguments is not None else None, prog_name="siloctl")


if __name__ == "__main__":
    main()
