"""Certificates of people, and the proxies that they make of them (RFC 3820)."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from servicelib.authority import Authority

_INHERIT_ALL = bytes.fromhex("300c300a06082b06010505071501")
_PROXY_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
_LONG = dt.timedelta(days=30)

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def person(authority: Authority, name: str = "Mule") -> Pair:
    """Give somebody a certificate of an authority: `/O=Arriero tests/CN=<name>`."""
    authority.ensure()
    issuer = x509.load_pem_x509_certificate(authority.ca_bundle.read_bytes())
    issuer_key = serialization.load_pem_private_key((authority.directory / "ca.key").read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = [(NameOID.ORGANIZATION_NAME, "Arriero tests"), (NameOID.COMMON_NAME, name)]
    built = (
        _builder(subject, issuer.subject, key, _LONG)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    return built.sign(issuer_key, hashes.SHA256()), key


def proxy(of: Pair, path: Path, *, good_for: dt.timedelta = dt.timedelta(hours=12)) -> Path:
    """Write a proxy of somebody's certificate, with its key and the certificate, into one file."""
    certificate, issuer_key = of
    key = ec.generate_private_key(ec.SECP256R1())
    subject = [(part.oid, str(part.value)) for part in certificate.subject]
    built = _builder(
        [*subject, (NameOID.COMMON_NAME, "1234567890")], certificate.subject, key, good_for
    ).add_extension(x509.UnrecognizedExtension(_PROXY_INFO, _INHERIT_ALL), critical=True)
    content = [
        built.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        pem_of(key),
        certificate.public_bytes(serialization.Encoding.PEM),
    ]
    path.touch(mode=0o600)
    path.write_bytes(b"".join(content))
    return path


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as it lies in files, without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: list[tuple[x509.ObjectIdentifier, str]],
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    good_for: dt.timedelta,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in subject]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + good_for)
        .add_extension(usage, critical=True)
    )
