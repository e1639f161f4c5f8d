from __future__ import annotations

import pytest

from silo.errors import ConfigError
from silo.storage.template import PathTemplate, filled_in, has_placeholder


@pytest.mark.parametrize(
    ("backend", "path", "kind", "root", "own"),
    [
        ("fs", "./silo-data/%shard%", "fs", "./silo-data", "%shard%"),
        ("fs", "/var/silo/{shard}/db/", "fs", "/var/silo", "{shard}/db/"),
        ("fs", "/%shard%", "fs", "/", "%shard%"),
        ("url", "file:///var/silo/%shard%", "fs", "/var/silo", "%shard%"),
        ("s3", "s3://bucket/%shard%", "s3", "s3://bucket", "%shard%"),
        ("gcs", "gs://bucket/silo/%shard%/%shard%", "gcs", "gs://bucket/silo", "%shard%/%shard%"),
        ("url", "s3://bucket/a/b/{shard}", "s3", "s3://bucket/a/b", "{shard}"),
        ("url", "az://box/silo/%shard%", "azure", "az://box/silo", "%shard%"),
        ("memory", "/%shard%", "memory", "memory://", "%shard%"),
        ("memory", "/x/%shard%", "memory", "memory:///x", "%shard%"),
        ("url", "memory:///x/%shard%", "memory", "memory:///x", "%shard%"),
    ],
)
def test_a_template_has_a_root_for_all_shards_and_a_part_for_each(backend, path, kind, root, own):
    template = PathTemplate.parse(backend, path)

    assert (template.kind, template.root, template.own) == (kind, root, own)
    assert template.is_remote == (kind not in ("fs", "memory"))


MISSING = "must contain a shard placeholder (%shard% or {shard}), got: "
NOT_AFTER_A_SLASH = "must be preceded by '/', got: "


@pytest.mark.parametrize(
    ("backend", "path", "sentence"),
    [
        pytest.param("fs", "./data", f"database template path {MISSING}./data", id="no placeholder"),
        pytest.param(
            "s3", "s3://b/x", f"object-store database template path {MISSING}s3://b/x", id="none in a bucket"
        ),
        pytest.param(
            "fs",
            "./data-%shard%",
            f"shard placeholder in database template path {NOT_AFTER_A_SLASH}./data-%shard%",
            id="a placeholder within a name",
        ),
        pytest.param(
            "fs",
            "%shard%",
            f"shard placeholder in database template path {NOT_AFTER_A_SLASH}%shard%",
            id="nothing before the placeholder",
        ),
        pytest.param(
            "s3",
            "s3://bucket/data-{shard}",
            f"shard placeholder in object-store database template path {NOT_AFTER_A_SLASH}s3://bucket/data-{{shard}}",
            id="a placeholder within a name in a bucket",
        ),
        pytest.param(
            "s3",
            "bucket/%shard%",
            "failed to parse object store URL bucket/%shard%: expected s3://",
            id="no URL",
        ),
        pytest.param(
            "gcs",
            "s3://b/%shard%",
            "failed to parse object store URL s3://b/%shard%: expected gs://",
            id="another store",
        ),
        pytest.param(
            "gcs",
            "gs://%shard%",
            "failed to parse object store URL gs://%shard%: expected gs://",
            id="no bucket",
        ),
        pytest.param(
            "url",
            "ftp://host/%shard%",
            "failed to parse object store URL ftp://host/%shard%: expected "
            "s3:// or gs:// or az:// or azure:// or abfs:// or file:// or memory://",
            id="a URL of no store",
        ),
    ],
)
def test_a_template_that_would_mix_up_shards_or_leads_nowhere_is_refused(backend, path, sentence):
    with pytest.raises(ConfigError) as refused:
        PathTemplate.parse(backend, path)

    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("text", "filled"), [("%shard%", "s1"), ("/a/{shard}/b/%shard%", "/a/s1/b/s1"), ("none", "none")]
)
def test_each_placeholder_is_filled_in(text, filled):
    assert filled_in(text, "s1") == filled
    assert has_placeholder(text) == (filled != text)
