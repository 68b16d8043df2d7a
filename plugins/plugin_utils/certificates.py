# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates for NUT: make them, and tell whether given ones will do. For the controller; it touches no file.

What Debian's NUT accepts is what NSS accepts. What is said of it here was seen with upsd and upsmon of Debian 12 (NSS 3.87)
and 13 (NSS 3.110).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Union

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    # ansible-core needs it itself, so this is a broken installation
    MISSING = str(error)
else:
    MISSING = ""
    Key = Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]

# A certificate that expires unnoticed takes the power protection away: no upsmon logs in any more. In a homelab that is
# touched twice a year that is worse than a long life. So each is renewed by a run long before its end, and the CA lives
# longer than whatever it signs.
YEAR = timedelta(days=365)
LIFE, LEFT = 10 * YEAR, 3 * YEAR
CA_LIFE, CA_LEFT = 20 * YEAR, 12 * YEAR
# The hosts' clocks may be behind.
BEFORE = timedelta(days=1)
SOON = timedelta(days=30)

# NSS imports no Ed25519 key, and has no other curve for a handshake.
CURVES = ("secp256r1", "secp384r1", "secp521r1")

_LABELS = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


class CertificateError(Exception):
    """``part`` (ca, certificate or key) can't be used; the message says why, and what to do."""

    def __init__(self, part: str, why: str) -> None:
        super().__init__(why)
        self.part = part


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, in PEM."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Checked:
    """Given certificates in their normal form: the host's own first, then its intermediates; the key as PKCS #8."""

    ca: str
    certificate: str
    key: str
    warnings: tuple[str, ...]


# Making


def make_ca(name: str, now: datetime, old: Pair | None = None) -> Pair:
    """Make an authority. With OLD it is the same one again, with a new life: what either signed, both verify."""
    key = _read_key(old.key) if old else ec.generate_private_key(ec.SECP256R1())
    subject = read_certificate("ca", old.certificate).subject if old else _common_name(name)
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _start_builder(subject, subject, key, now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Pair(_to_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def issue_certificate(ca: Pair, name: str, names: Iterable[str], now: datetime) -> Pair:
    """Make a certificate for a server, with a key of its own. names: what is_name accepts."""
    signer, authority = _read_key(ca.key), read_certificate("ca", ca.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _start_builder(_common_name(name), authority.subject, key, now, LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_to_general_name(entry) for entry in names]), critical=False)
        # by the key alone, which a renewed CA keeps
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return Pair(_to_pem(builder.sign(signer, hashes.SHA256())), _key_pem(key))


def is_name(text: str) -> bool:
    """Say whether a certificate can carry this name: an IP address, or a DNS name."""
    return _parse_address(text) is not None or (len(text) < 254 and _LABELS.fullmatch(text) is not None)


def _start_builder(
    subject: x509.Name, issuer: x509.Name, key: Key, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(text: str) -> x509.Name:
    # 64 characters is X.509's limit
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


# Telling


def needs_renewal(pair: Pair, ca: str, names: Iterable[str], now: datetime) -> str:
    """Say why a certificate of our own is to be made anew. Empty if it is good.

    A name that it covers without need is no reason: a renewal restarts the power protection.
    """
    try:
        certificate = read_certificate("certificate", pair.certificate)
        _require_key_of(certificate, pair.key)
        _find_chain(certificate, [], read_certificates("ca", ca), now)
    except CertificateError as error:
        return str(error)
    if certificate.not_valid_after_utc - now < LEFT:
        return f"it ends at {_end_day(certificate)}"
    missing = [name for name in names if not covers_name(certificate, name)]
    return f"it does not cover {', '.join(missing)}" if missing else ""


def is_ca_ending(ca: str, now: datetime) -> bool:
    """Say whether an authority of our own should get a new life."""
    return read_certificate("ca", ca).not_valid_after_utc - now < CA_LEFT


def is_key_of(certificate: str, key: str) -> bool:
    """Say whether a private key is the certificate's. Raises CertificateError if either can't be read."""
    return read_certificate("certificate", certificate).public_key() == _read_key(key).public_key()


def check_certificates(ca: str, certificate: str, key: str, name: str, now: datetime) -> Checked:
    """Check certificates that somebody else has made, for a server that its clients call NAME.

    Raises CertificateError for what upsd or upsmon would refuse.
    """
    authorities = read_certificates("ca", ca)
    given = read_certificates("certificate", certificate)
    own = given[0]
    _require_key_of(own, key)
    _require_server_use(own)
    if not covers_name(own, name):
        raise CertificateError(
            "certificate",
            f"it is for {', '.join(_list_names(own)) or 'no name at all (subjectAltName)'}, and not for {name}, by which"
            " secondaries call this host: get one that covers it, or set nut_server_address",
        )
    chain = [own, *_find_chain(own, given[1:], authorities, now)]
    ends = min(chain, key=lambda entry: entry.not_valid_after_utc)
    warnings = []
    if ends.not_valid_after_utc - now < SOON:
        warnings.append(
            f"{_describe_subject(ends)} ends at {_end_day(ends)}. No upsmon can log in from then on: renew it in time"
        )
    return Checked(
        "".join(map(_to_pem, authorities)), "".join(map(_to_pem, given)), _key_pem(_read_key(key)), tuple(warnings)
    )


def read_certificates(part: str, text: str) -> list[x509.Certificate]:
    """Read the certificates of a PEM text, at least one. Raises CertificateError."""
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise CertificateError(part, "it holds no certificate in PEM (BEGIN CERTIFICATE), or a broken one") from None


def read_certificate(part: str, text: str) -> x509.Certificate:
    """Read the first certificate of a PEM text. Raises CertificateError."""
    return read_certificates(part, text)[0]


def covers_name(certificate: x509.Certificate, name: str) -> bool:
    """Say whether a server with this certificate may be called NAME, an IP address or a DNS name."""
    wanted = _parse_address(name)
    for entry in _general_names(certificate):
        if isinstance(entry, x509.IPAddress) and entry.value == wanted:
            return True
        if isinstance(entry, x509.DNSName) and wanted is None and _matches_pattern(entry.value.lower(), name.lower()):
            return True
    return False


def _matches_pattern(pattern: str, name: str) -> bool:
    first, _dot, rest = name.partition(".")
    # neither NSS nor OpenSSL takes *.lan
    return pattern == name or (first != "" and "." in rest and pattern == f"*.{rest}")


def _general_names(certificate: x509.Certificate) -> Sequence[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _list_names(certificate: x509.Certificate) -> list[str]:
    return [str(entry.value) for entry in _general_names(certificate)]


def _require_server_use(certificate: x509.Certificate) -> None:
    """Raises CertificateError for what NSS takes for no server's certificate."""
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        pass
    else:
        if ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
            raise CertificateError("certificate", "it is not for servers (extendedKeyUsage has no serverAuth)")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    # NSS asks for it though TLS 1.3 has no use for it
    if isinstance(certificate.public_key(), rsa.RSAPublicKey) and not usage.key_encipherment:
        raise CertificateError(
            "certificate", "it has an RSA key and a keyUsage without keyEncipherment, which NUT's clients refuse"
        )


def _require_key_of(certificate: x509.Certificate, key: str) -> None:
    if certificate.public_key() != _read_key(key).public_key():
        raise CertificateError(
            "key", f"it is not the key of {_describe_subject(certificate)}, the first in the certificate's text"
        )


def _find_chain(
    certificate: x509.Certificate,
    others: Iterable[x509.Certificate],
    authorities: Iterable[x509.Certificate],
    now: datetime,
) -> list[x509.Certificate]:
    """Return who signed a certificate, up to one of the authorities. Raises CertificateError."""
    left = list(others)
    chain: list[x509.Certificate] = []
    current = certificate
    _require_in_force("certificate", current, now)
    while True:
        signer = next((entry for entry in authorities if _is_signed_by(current, entry)), None)
        if signer is not None:
            _require_in_force("ca", signer, now)
            return [*chain, signer]
        signer = next((entry for entry in left if _is_signed_by(current, entry)), None)
        if signer is None:
            raise CertificateError(
                "certificate",
                f"{_describe_subject(current)} was signed by {current.issuer.rfc4514_string()}, which is neither the CA nor an"
                " intermediate in the certificate's text",
            )
        _require_in_force("certificate", signer, now)
        left.remove(signer)
        chain.append(signer)
        current = signer


def _is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
        return issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False


def _require_in_force(part: str, certificate: x509.Certificate, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise CertificateError(
            part, f"{_describe_subject(certificate)} has expired, at {_end_day(certificate)}: renew it"
        )
    if now < certificate.not_valid_before_utc:
        raise CertificateError(
            part,
            f"{_describe_subject(certificate)} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}."
            " Is this machine's clock right?",
        )


def _read_key(text: str) -> Key:
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise CertificateError(
            "key", "it is encrypted, and NUT has nobody to ask for its password: decrypt it, and keep it in a vault"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("key", "it holds no private key in PEM (BEGIN PRIVATE KEY), or a broken one") from None
    if isinstance(key, rsa.RSAPrivateKey) or (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES):
        return key
    raise CertificateError("key", "NUT takes RSA, and ECDSA with P-256, P-384 or P-521 only")


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])  # a certificate knows no zones
    except ValueError:
        return None


def _to_general_name(name: str) -> x509.GeneralName:
    address = _parse_address(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def _describe_subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a subject"


def _end_day(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"


def _to_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: Key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
