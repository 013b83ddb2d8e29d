"""Certificate authorities of one sandbox and what they sign: server, client and front-proxy certificates.

TLS is not for secrecy here: kubectl sends its token over TLS only, and an aggregated API believes nothing but TLS.
"""

import ipaddress
import ssl
import tempfile
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

_VALID = timedelta(days=30)
_PEM = serialization.Encoding.PEM


class KeyPair(Struct, frozen=True):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates; its own one and all that it signs are valid for 30 days around `now`."""

    def __init__(self, name: str, now: datetime) -> None:
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = signed.public_bytes(_PEM)
        """The authority's own certificate, PEM."""

    def server(self, name: str, hosts: Iterable[str]) -> KeyPair:
        """A server's certificate for DNS names and addresses."""
        return self._issue(
            [(NameOID.COMMON_NAME, name)], ExtendedKeyUsageOID.SERVER_AUTH, [_host(one) for one in hosts]
        )

    def client(self, user: str, groups: Iterable[str] = ()) -> KeyPair:
        """A client's certificate: the common name is the user, each organization a group."""
        named = [(NameOID.ORGANIZATION_NAME, group) for group in groups]
        return self._issue([*named, (NameOID.COMMON_NAME, user)], ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def _issue(
        self, named: list[tuple[x509.ObjectIdentifier, str]], use: x509.ObjectIdentifier, hosts: list[x509.GeneralName]
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        # One attribute a relative name: several in one would be sorted by their encoding.
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in named])
        builder = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return KeyPair(signed.public_bytes(_PEM), private)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - timedelta(hours=1))
            .not_valid_after(self._now + _VALID)
        )


def server_context(pair: KeyPair, client_authority: bytes) -> ssl.SSLContext:
    """A server that takes client certificates of one authority and does without them, too. Blocking.

    A certificate of any other authority ends the handshake; the real server answers 401.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=client_authority.decode())
    _load(context, pair)
    return context


def proxy_context(pair: KeyPair, authority: bytes, *, verified: bool) -> ssl.SSLContext:
    """A client with a certificate; without an authority the machine's own ones are believed. Blocking.

    Raises:
        ssl.SSLError: the authority holds no certificate.
    """
    context = ssl.create_default_context(cadata=authority.decode("ascii", "replace") if authority else None)
    # What an API server asks of a certificate, and no more: strictness is no part of it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verified:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _load(context, pair)
    return context


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    """ssl loads key pairs from files only, so they exist for a moment, for us alone."""
    with tempfile.TemporaryDirectory(prefix="toe-sandbox-") as directory:
        certificate, key = Path(directory, "pair.crt"), Path(directory, "pair.key")
        certificate.write_bytes(pair.certificate)
        key.write_bytes(pair.key)
        context.load_cert_chain(certificate, key)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
