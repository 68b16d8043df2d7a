# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes certificates for NUT, and checks those that the user provides. Runs on the controller, and touches no file.

NUT in Debian accepts what NSS accepts. The comments on NSS were verified with upsd and upsmon of Debian 12 (NSS 3.87) and
13 (NSS 3.110).
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
    # ansible-core requires cryptography, so this installation is broken
    MISSING = str(error)
else:
    MISSING = ""
    Key = Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]

# When a certificate expires unnoticed, no upsmon can log in, and the power protection is gone. In a homelab that is touched
# twice a year, that is worse than a long lifetime. So runs renew a certificate years before it expires, and the CA outlives
# every certificate that it signs.
YEAR = timedelta(days=365)
LIFE, LEFT = 10 * YEAR, 3 * YEAR
CA_LIFE, CA_LEFT = 20 * YEAR, 12 * YEAR
# the hosts' clocks may be slow
BEFORE = timedelta(days=1)
SOON = timedelta(days=30)

# NSS cannot import Ed25519 keys, and supports no other curves in a handshake
CURVES = ("secp256r1", "secp384r1", "secp521r1")

_LABELS = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


class CertificateError(Exception):
    """``part`` (ca, certificate or key) can't be used. The message says why, and what to do."""

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
    """Valid certificates of the user's, in PEM."""

    ca: str
    certificate: str  # the host's own, then its intermediates
    key: str  # as PKCS #8
    warnings: tuple[str, ...]


# Making


def make_ca(name: str, now: datetime, old: Pair | None = None) -> Pair:
    """Return a new authority, or OLD with a new lifetime. Certificates signed by either are valid with both."""
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
    """Return a new key and a server certificate for it. is_name must accept all names."""
    signer, authority = _read_key(ca.key), read_certificate("ca", ca.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _start_builder(_common_name(name), authority.subject, key, now, LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_to_general_name(entry) for entry in names]), critical=False)
        # identifies the CA by its key alone, which a renewal keeps
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return Pair(_to_pem(builder.sign(signer, hashes.SHA256())), _key_pem(key))


def is_name(text: str) -> bool:
    """Return whether a certificate can be issued for this name: an IP address or a DNS name."""
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


# Checking


def needs_renewal(pair: Pair, ca: str, names: Iterable[str], now: datetime) -> str:
    """Return why a certificate of our own must be renewed; "" if it need not.

    A superfluous name is no reason, because a renewal restarts NUT.
    """
    try:
        certificate = read_certificate("certificate", pair.certificate)
        _require_key_of(certificate, pair.key)
        _find_chain(certificate, [], read_certificates("ca", ca), now)
    except CertificateError as error:
        return str(error)
    if certificate.not_valid_after_utc - now < LEFT:
        return f"it expires on {_end_day(certificate)}"
    missing = [name for name in names if not covers_name(certificate, name)]
    return f"it does not cover {', '.join(missing)}" if missing else ""


def is_ca_ending(ca: str, now: datetime) -> bool:
    """Return whether an authority of our own must be renewed."""
    return read_certificate("ca", ca).not_valid_after_utc - now < CA_LEFT


def is_key_of(certificate: str, key: str) -> bool:
    """Return whether a private key belongs to a certificate. Raises CertificateError if either can't be read."""
    return read_certificate("certificate", certificate).public_key() == _read_key(key).public_key()


def check_certificates(ca: str, certificate: str, key: str, name: str, now: datetime) -> Checked:
    """Check certificates of the user's for a server that its clients connect to as NAME.

    Raises CertificateError if upsd or upsmon would reject them.
    """
    authorities = read_certificates("ca", ca)
    given = read_certificates("certificate", certificate)
    own = given[0]
    _require_key_of(own, key)
    _require_server_use(own)
    if not covers_name(own, name):
        raise CertificateError(
            "certificate",
            f"it is for {', '.join(_list_names(own)) or 'no name at all (subjectAltName)'}, but secondaries connect to"
            f" {name}: get a certificate for that name, or set nut_server_address",
        )
    chain = [own, *_find_chain(own, given[1:], authorities, now)]
    ends = min(chain, key=lambda entry: entry.not_valid_after_utc)
    warnings = []
    if ends.not_valid_after_utc - now < SOON:
        warnings.append(
            f"{_describe_subject(ends)} expires on {_end_day(ends)}. After that no upsmon can log in: renew it in time"
        )
    return Checked(
        "".join(map(_to_pem, authorities)), "".join(map(_to_pem, given)), _key_pem(_read_key(key)), tuple(warnings)
    )


def read_certificates(part: str, text: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM text, at least one. Raises CertificateError."""
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise CertificateError(part, "it is not a valid certificate in PEM format (BEGIN CERTIFICATE)") from None


def read_certificate(part: str, text: str) -> x509.Certificate:
    """Return the first certificate of a PEM text. Raises CertificateError."""
    return read_certificates(part, text)[0]


def covers_name(certificate: x509.Certificate, name: str) -> bool:
    """Return whether a certificate is valid for a server called NAME, an IP address or a DNS name."""
    wanted = _parse_address(name)
    for entry in _general_names(certificate):
        if isinstance(entry, x509.IPAddress) and entry.value == wanted:
            return True
        if isinstance(entry, x509.DNSName) and wanted is None and _matches_pattern(entry.value.lower(), name.lower()):
            return True
    return False


def _matches_pattern(pattern: str, name: str) -> bool:
    first, _dot, rest = name.partition(".")
    # neither NSS nor OpenSSL accepts *.lan
    return pattern == name or (first != "" and "." in rest and pattern == f"*.{rest}")


def _general_names(certificate: x509.Certificate) -> Sequence[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _list_names(certificate: x509.Certificate) -> list[str]:
    return [str(entry.value) for entry in _general_names(certificate)]


def _require_server_use(certificate: x509.Certificate) -> None:
    """Raise CertificateError if NSS would not accept a certificate for a server."""
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
    # NSS requires it, although TLS 1.3 does not use it
    if isinstance(certificate.public_key(), rsa.RSAPublicKey) and not usage.key_encipherment:
        raise CertificateError(
            "certificate", "it has an RSA key, but its keyUsage lacks keyEncipherment, so NUT's clients reject it"
        )


def _require_key_of(certificate: x509.Certificate, key: str) -> None:
    if certificate.public_key() != _read_key(key).public_key():
        raise CertificateError(
            "key", f"it does not belong to {_describe_subject(certificate)}, the first certificate in its file"
        )


def _find_chain(
    certificate: x509.Certificate,
    others: Iterable[x509.Certificate],
    authorities: Iterable[x509.Certificate],
    now: datetime,
) -> list[x509.Certificate]:
    """Return the signers of a certificate, up to one of the authorities. Raises CertificateError."""
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
                " intermediate certificate that comes with it",
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
        raise CertificateError(part, f"{_describe_subject(certificate)} expired on {_end_day(certificate)}: renew it")
    if now < certificate.not_valid_before_utc:
        raise CertificateError(
            part,
            f"{_describe_subject(certificate)} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}."
            " Is this machine's clock correct?",
        )


def _read_key(text: str) -> Key:
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise CertificateError(
            "key", "it is encrypted, and NUT cannot ask for the password: decrypt it, and keep it in Ansible Vault"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("key", "it is not a valid private key in PEM format (BEGIN PRIVATE KEY)") from None
    if isinstance(key, rsa.RSAPrivateKey) or (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES):
        return key
    raise CertificateError("key", "NUT accepts only RSA, and ECDSA with P-256, P-384 or P-521")


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])  # certificates have no zones
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
