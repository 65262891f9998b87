"""A Postgres with a certificate of its own CA, under another name than loopback: which settings prove the server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dev import postgres_server, seed
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.model.errors import PreflightError
from dualwrite.runs import doctor
from tests.conftest import prepare
from tests.databases import administrated, clone
from tests.migrating import transaction_pooler
from tests.support import apply, nonzero

HOST = "db.example.org"


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _certificate(subject: str, key: Any, issuer: str, signer: Any, *, ca: bool) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """How to reach a server that speaks TLS as HOST; `ca` and `other_ca` are files."""
    if not postgres_server.DEBIAN_15.is_dir():  # the wheel's build speaks no TLS
        pytest.skip("no Postgres 15 on this machine: apt-get install postgresql-15")
    folder = tmp_path_factory.mktemp("tls")
    authority, other, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    (folder / "ca.crt").write_bytes(_pem(_certificate("Our CA", authority, "Our CA", authority, ca=True)))
    (folder / "other.crt").write_bytes(_pem(_certificate("Other CA", other, "Other CA", other, ca=True)))
    with (
        postgres_server.server(binaries=postgres_server.DEBIAN_15) as uri,
        administrated(uri),
        psycopg.connect(uri, autocommit=True) as connection,
    ):
        data = Path(connection.execute("SHOW data_directory").fetchone()[0])
        certificate = _pem(_certificate(HOST, own, "Our CA", authority, ca=False))
        user = postgres_server.unprivileged()
        for place in (data, folder):
            (place / "server.crt").write_bytes(certificate)
            (place / "server.key").write_bytes(
                own.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
        for file in (data / "server.crt", data / "server.key"):
            file.chmod(0o600)
            if user is not None:
                os.chown(file, user.pw_uid, user.pw_gid)
        connection.execute("ALTER SYSTEM SET ssl = on")
        connection.execute("SELECT pg_reload_conf()")
        prepare(uri)
        info = psycopg.conninfo.conninfo_to_dict(uri)
        yield {
            "reach": {
                "host": HOST,
                "hostaddr": "127.0.0.1",
                "port": info["port"],
                "user": "postgres",
                "dbname": "postgres",
            },
            "ca": str(folder / "ca.crt"),
            "other_ca": str(folder / "other.crt"),
            "certificate": str(folder / "server.crt"),
            "key": str(folder / "server.key"),
            "uri": uri,
        }


@pytest.fixture
def pooled(tls: dict[str, Any], tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The migrated database behind a PgBouncer that takes nothing but TLS, as HOST, and speaks TLS to Postgres."""
    own = tmp_path / "pooler.key"  # whoever runs PgBouncer must be able to read it
    own.write_bytes(Path(tls["key"]).read_bytes())
    own.chmod(0o644)
    certificate = tmp_path / "pooler.crt"
    certificate.write_bytes(Path(tls["certificate"]).read_bytes())
    for dsn in clone(tls["uri"], "migrated"):
        settings = {
            "client_tls_sslmode": "require",
            "client_tls_key_file": str(own),
            "client_tls_cert_file": str(certificate),
            "server_tls_sslmode": "require",
        }
        with transaction_pooler(dsn, tmp_path, **settings) as address:
            reached = psycopg.conninfo.conninfo_to_dict(address)
            yield {
                **tls,
                "reach": {**tls["reach"], "port": reached["port"], "dbname": reached["dbname"]},
                "direct": dsn,
            }


def _no_source():
    raise PreflightError("not looked at here")


def _line(tls: dict[str, Any], **settings: str) -> doctor.Line:
    found = doctor.examine(_no_source, lambda: postgres.connect(**tls["reach"], **settings), CATALOG)
    return next(line for line in found if line.what in ("TLS", "Postgres") and (line.fault or line.what == "TLS"))


def test_verify_full_with_its_own_ca_proves_the_server(tls):
    assert _line(tls, sslmode="verify-full", sslrootcert=tls["ca"]) == doctor.Line("TLS", note="verify-full")


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca"])
def test_anything_less_is_told_with_what_to_set(tls, mode):
    ca = {"sslrootcert": tls["ca"]} if mode == "verify-ca" else {}
    line = _line(tls, sslmode=mode, **ca)
    assert line.what == "TLS"
    assert f"sslmode is {mode}" in str(line.fault)
    assert "Set verify-full, and sslrootcert to its CA" in str(line.fault)


def test_a_plain_connection_is_told(tls):
    assert "the connection is plain" in str(_line(tls, sslmode="disable").fault)


def test_another_ca_and_another_name_are_refused(tls):
    refused = _line(tls, sslmode="verify-full", sslrootcert=tls["other_ca"])
    assert refused.what == "Postgres"
    assert "certificate verify failed" in str(refused.fault)
    other = {**tls, "reach": {**tls["reach"], "host": "another.example.org"}}
    misnamed = _line(other, sslmode="verify-full", sslrootcert=tls["ca"])
    assert "does not match host name" in str(misnamed.fault)


def test_a_pooler_with_tls_is_proved_by_its_certificate(pooled):
    assert _line(pooled, sslmode="verify-full", sslrootcert=pooled["ca"]) == doctor.Line("TLS", note="verify-full")
    assert "sslmode is require" in str(_line(pooled, sslmode="require").fault)
    refused = _line(pooled, sslmode="verify-full", sslrootcert=pooled["other_ca"])
    assert "certificate verify failed" in str(refused.fault)
    plain = _line(pooled, sslmode="disable")
    assert plain.what == "Postgres"
    assert "SSL required" in str(plain.fault)


def test_a_gap_is_closed_through_a_pooler_with_tls(pooled, firestore, emulator):
    world = seed.small()
    world.load_source(firestore)
    with psycopg.connect(pooled["direct"]) as connection:
        world.load_target(connection)
    proved = psycopg.conninfo.make_conninfo(**pooled["reach"], sslmode="verify-full", sslrootcert=pooled["ca"])
    found = apply(firestore.project, emulator, proved, page_size=50)
    assert {n: nonzero(r["counts"]) for n, r in found.items()} == {n: dict(world.in_window[n]) for n in CATALOG.names}
    again = apply(firestore.project, emulator, proved)
    assert sum(r["inserted"] + r["updated"] for r in again.values()) == 0
