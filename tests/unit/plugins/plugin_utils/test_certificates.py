# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.plugin_utils import certificates
from ansible_collections.homelab.nut.plugins.plugin_utils.certificates import CertificateError, Pair
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)
NAMES = ["pve", "192.0.2.2", "fd00::2", "localhost"]


@pytest.fixture(scope="module")
def ca() -> Pair:
    return certificates.make_ca("our CA", NOW)


@pytest.fixture(scope="module")
def own(ca: Pair) -> Pair:
    return certificates.issue_certificate(ca, "pve", NAMES, NOW)


def verify_strictly(pair: Pair, ca: Pair, name: str, now: datetime = NOW) -> None:
    """Verify by the rules of web browsers, which are stricter than NSS. Raises VerificationError."""
    store = Store([certificates.read_certificate("ca", ca.certificate)])
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(name))
    verifier.verify(certificates.read_certificate("certificate", pair.certificate), [])


# Making


def test_issued_certificate_passes_strict_verification(ca: Pair, own: Pair) -> None:
    for when in (NOW - DAY, NOW, NOW + 10 * YEAR):
        verify_strictly(own, ca, "pve", when)
    for when in (NOW - 2 * DAY, NOW + 10 * YEAR + DAY):
        with pytest.raises(x509.verification.VerificationError):
            verify_strictly(own, ca, "pve", when)


def test_ca_has_the_extensions_of_an_authority(ca: Pair) -> None:
    made = certificates.read_certificate("ca", ca.certificate)
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    assert made.subject.rfc4514_string() == "CN=our CA"
    assert made.not_valid_after_utc == NOW + 20 * YEAR


def test_host_certificate_has_the_extensions_of_a_server(ca: Pair, own: Pair) -> None:
    made = certificates.read_certificate("certificate", own.certificate)
    find = made.extensions.get_extension_for_class
    assert list(find(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)) == ["pve", "localhost"]
    assert [str(ip) for ip in find(x509.SubjectAlternativeName).value.get_values_for_type(x509.IPAddress)] == NAMES[1:3]
    assert find(x509.BasicConstraints).critical
    assert not find(x509.BasicConstraints).value.ca
    assert list(find(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    authority = certificates.read_certificate("ca", ca.certificate).extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    )
    assert find(x509.AuthorityKeyIdentifier).value.key_identifier == authority.value.digest
    # a renewed CA has another serial number
    assert find(x509.AuthorityKeyIdentifier).value.authority_cert_serial_number is None
    assert made.not_valid_before_utc == NOW - DAY


def test_every_certificate_has_its_own_key(ca: Pair, own: Pair) -> None:
    assert len({ca.key, own.key, certificates.issue_certificate(ca, "pve", NAMES, NOW).key}) == 3
    assert certificates.is_key_of(own.certificate, own.key)
    assert not certificates.is_key_of(own.certificate, ca.key)


def test_renewed_ca_and_old_ca_verify_the_same_certificates(ca: Pair, own: Pair) -> None:
    later = NOW + 9 * YEAR
    renewed = certificates.make_ca("", later, ca)
    assert renewed.key == ca.key
    assert renewed.certificate != ca.certificate
    verify_strictly(own, renewed, "pve", later)
    verify_strictly(certificates.issue_certificate(renewed, "pve", NAMES, later), ca, "pve", later)
    assert certificates.read_certificate("ca", renewed.certificate).not_valid_after_utc == later + 20 * YEAR


def test_long_host_name_is_shortened_in_the_subject(ca: Pair) -> None:
    made = certificates.read_certificate(
        "certificate", certificates.issue_certificate(ca, "x" * 70, NAMES, NOW).certificate
    )
    assert made.subject.rfc4514_string() == "CN=" + "x" * 64


@pytest.mark.parametrize("name", ["pve", "pve-1.home.lan", "a_b", "192.0.2.2", "fd00::2", "fe80::1%eth0", "*.home.lan"])
def test_valid_name_is_covered(ca: Pair, name: str) -> None:
    assert certificates.is_name(name)
    made = certificates.issue_certificate(ca, "pve", [name], NOW)
    assert certificates.covers_name(certificates.read_certificate("certificate", made.certificate), name)


@pytest.mark.parametrize("name", ["", "büro", "a b", "a..b", ".a", "a.", "x" * 64, "pve:3493", "[::1]", "a.*", "a/b"])
def test_invalid_name_is_recognized(name: str) -> None:
    assert not certificates.is_name(name)


# Renewing


def test_good_certificate_is_not_renewed(ca: Pair, own: Pair) -> None:
    for when in (NOW, NOW + 7 * YEAR):
        assert certificates.needs_renewal(own, ca.certificate, NAMES, when) == ""
    assert certificates.needs_renewal(own, ca.certificate, NAMES[:2], NOW) == ""


def test_certificate_is_renewed_three_years_before_expiry(ca: Pair, own: Pair) -> None:
    assert certificates.needs_renewal(own, ca.certificate, NAMES, NOW + 7 * YEAR + DAY) == "it expires on 2036-11-19"


def test_expired_certificate_is_renewed(ca: Pair, own: Pair) -> None:
    assert "expired on" in certificates.needs_renewal(own, ca.certificate, NAMES, NOW + 10 * YEAR + DAY)


def test_missing_name_requires_renewal(ca: Pair, own: Pair) -> None:
    assert certificates.needs_renewal(own, ca.certificate, [*NAMES, "nut", "192.0.2.9"], NOW) == (
        "it does not cover nut, 192.0.2.9"
    )


def test_certificate_of_another_ca_is_renewed(ca: Pair, own: Pair) -> None:
    # even with the same name
    other = certificates.make_ca("our CA", NOW)
    assert "was signed by CN=our CA, which is neither" in certificates.needs_renewal(own, other.certificate, NAMES, NOW)
    renewed = certificates.make_ca("", NOW, ca)
    assert certificates.needs_renewal(own, renewed.certificate, NAMES, NOW) == ""


def test_broken_file_requires_renewal(ca: Pair, own: Pair) -> None:
    for pair in (Pair(own.certificate, ""), Pair("", own.key), Pair(own.certificate, ca.key)):
        assert certificates.needs_renewal(pair, ca.certificate, NAMES, NOW)


def test_ca_is_renewed_before_a_certificate_could_outlive_the_ca(ca: Pair) -> None:
    assert not certificates.is_ca_ending(ca.certificate, NOW + 8 * YEAR)
    assert certificates.is_ca_ending(ca.certificate, NOW + 8 * YEAR + DAY)
    assert certificates.CA_LEFT > certificates.LIFE


# Provided by the user


@dataclass
class Kind:
    """The properties of a certificate that a user may provide."""

    names: Sequence[str] = ("pve",)
    begins: timedelta = -DAY
    ends: timedelta = 99 * DAY
    authority: bool = False
    usages: Sequence[str] = ()
    purposes: Sequence[x509.ObjectIdentifier] = ()


def sign(subject: str, key: Any, signer: Pair | None = None, kind: Kind | None = None) -> Pair:
    kind = kind or Kind()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    issuer = certificates.read_certificate("ca", signer.certificate).subject if signer else name
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + kind.begins)
        .not_valid_after(NOW + kind.ends)
        .add_extension(x509.BasicConstraints(kind.authority, None), critical=True)
    )
    if kind.names:
        entries = [certificates._to_general_name(entry) for entry in kind.names]
        builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
    if kind.usages:
        every = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign"
        flags = {flag: flag in kind.usages for flag in f"{every} crl_sign encipher_only decipher_only".split()}
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    if kind.purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(kind.purposes), critical=False)
    private = serialization.load_pem_private_key(signer.key.encode(), None) if signer else key
    assert isinstance(private, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
    text = (
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        if not isinstance(key, ed25519.Ed25519PrivateKey)
        else key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    signed = builder.sign(private, hashes.SHA256())
    return Pair(signed.public_bytes(serialization.Encoding.PEM).decode(), text.decode())


AUTHORITY = Kind(names=(), authority=True)


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def root() -> Pair:
    return sign("root", p256(), kind=AUTHORITY)


def read_refusal(part: str, ca: Pair, pair: Pair, name: str = "pve", key: str = "") -> str:
    with pytest.raises(CertificateError) as caught:
        certificates.check_certificates(ca.certificate, pair.certificate, key or pair.key, name, NOW)
    assert caught.value.part == part
    return str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        p256(),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=lambda key: f"{type(key).__name__}-{key.key_size}",
)
def test_supported_key_types_are_accepted(root: Pair, key: Any) -> None:
    pair = sign("pve", key, root)
    checked = certificates.check_certificates(root.certificate, pair.certificate, pair.key, "pve", NOW)
    assert (checked.ca, checked.certificate, checked.warnings) == (root.certificate, pair.certificate, ())
    assert checked.key.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert certificates.is_key_of(checked.certificate, checked.key)


def test_text_around_pem_blocks_is_ignored(root: Pair) -> None:
    """openssl writes text around a certificate and a curve before a key. Some people keep both in one file."""
    pair = sign("pve", p256(), root)
    curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    both = f"Certificate:\r\n    Data:\n{pair.key}{pair.certificate}"
    checked = certificates.check_certificates(
        f"# our root\n{root.certificate}", both, f"\n{curve}{pair.key}", "pve", NOW
    )
    assert (checked.ca, checked.certificate) == (root.certificate, pair.certificate)


def test_intermediates_complete_the_chain(root: Pair) -> None:
    first = sign("first", p256(), root, AUTHORITY)
    second = sign("second", p256(), first, AUTHORITY)
    pair = sign("pve", p256(), second)
    # in any order, and with the root, which some people add
    text = pair.certificate + root.certificate + first.certificate + second.certificate
    assert certificates.check_certificates(root.certificate, text, pair.key, "pve", NOW).certificate == text
    # with an intermediate as the authority, no root is needed
    assert (
        certificates.check_certificates(second.certificate, pair.certificate, pair.key, "pve", NOW).ca
        == second.certificate
    )
    lacking = read_refusal("certificate", root, Pair(pair.certificate + first.certificate, pair.key))
    assert lacking.startswith("CN=pve was signed by CN=second, which is neither the CA nor an intermediate")


def test_several_authorities_are_accepted(root: Pair) -> None:
    other = sign("other", p256(), kind=AUTHORITY)
    pair = sign("pve", p256(), root)
    both = other.certificate + root.certificate
    assert certificates.check_certificates(both, pair.certificate, pair.key, "pve", NOW).ca == both


def test_self_signed_certificate_must_be_an_authority() -> None:
    pair = sign("pve", p256(), kind=Kind(authority=True))
    assert certificates.check_certificates(pair.certificate, pair.certificate, pair.key, "pve", NOW)
    # NSS rejects a certificate that is not marked as an authority
    pair = sign("pve", p256())
    assert "was signed by CN=pve, which is neither" in read_refusal("certificate", pair, pair)


def test_authorities_that_signed_each_other_are_no_chain(root: Pair) -> None:
    """The search for a chain ends."""
    left, right = p256(), p256()
    first = sign("left", left, kind=AUTHORITY)
    second = sign("right", right, first, AUTHORITY)
    again = sign("left", left, second, AUTHORITY)
    pair = sign("pve", p256(), Pair(again.certificate, first.key))
    text = pair.certificate + again.certificate + second.certificate
    assert "which is neither the CA" in read_refusal("certificate", root, Pair(text, pair.key))


def test_host_certificate_cannot_sign(root: Pair) -> None:
    host = sign("host", p256(), root)
    pair = sign("pve", p256(), host)
    assert "was signed by CN=host" in read_refusal(
        "certificate", root, Pair(pair.certificate + host.certificate, pair.key)
    )


def test_signature_of_another_authority_with_the_same_name_is_refused(root: Pair) -> None:
    pair = sign("pve", p256(), sign("root", p256(), kind=AUTHORITY))
    assert "was signed by CN=root, which is neither" in read_refusal("certificate", root, pair)


@pytest.mark.parametrize("name", ["pve.home.lan", "PVE.Home.LAN", "nut.lan", "192.0.2.2", "2001:db8:0::2"])
def test_covered_name_is_accepted(root: Pair, name: str) -> None:
    pair = sign("pve", p256(), root, Kind(names=("*.home.lan", "NUT.lan", "192.0.2.2", "2001:db8::2")))
    assert certificates.check_certificates(root.certificate, pair.certificate, pair.key, name, NOW)


@pytest.mark.parametrize("name", ["home.lan", ".home.lan", "pve.lan", "a.pve.home.lan", "192.0.2.3", "192.0.2", "pve"])
def test_uncovered_name_is_refused(root: Pair, name: str) -> None:
    pair = sign("pve", p256(), root, Kind(names=("*.home.lan", "192.0.2.2", "*.0.2.3", "*.lan")))
    why = read_refusal("certificate", root, pair, name)
    assert why.startswith(f"it is for *.home.lan, 192.0.2.2, *.0.2.3, *.lan, but secondaries connect to {name}: ")


def test_common_name_alone_does_not_count(root: Pair) -> None:
    pair = sign("pve", p256(), root, Kind(names=()))
    assert read_refusal("certificate", root, pair).startswith(
        "it is for no name at all (subjectAltName), but secondaries connect to pve: "
    )


def test_expired_and_future_certificates_are_refused(root: Pair) -> None:
    def lasting(begins: int, ends: int, signer: Pair = root) -> Pair:
        return sign("pve", p256(), signer, Kind(begins=begins * DAY, ends=ends * DAY))

    old = Kind(names=(), authority=True, begins=-9 * DAY, ends=-DAY)
    assert "CN=pve expired on 2026-11-21" in read_refusal("certificate", root, lasting(-9, -1))
    assert "CN=pve is not valid before 2026-11-23" in read_refusal("certificate", root, lasting(1, 9))
    expired = sign("old", p256(), kind=old)
    assert "CN=old expired on" in read_refusal("ca", expired, lasting(-9, 99, expired))
    between = sign("between", p256(), root, old)
    pair = lasting(-9, 99, between)
    assert "CN=between expired on" in read_refusal(
        "certificate", root, Pair(pair.certificate + between.certificate, pair.key)
    )


@pytest.mark.parametrize(("days", "warns"), [(29, True), (31, False)])
def test_expiry_within_30_days_warns(days: int, warns: bool) -> None:
    """The first certificate of the chain to expire counts."""
    soon = Kind(names=(), authority=True, ends=days * DAY)
    root = sign("root", p256(), kind=soon)
    pair = sign("pve", p256(), root)
    checked = certificates.check_certificates(root.certificate, pair.certificate, pair.key, "pve", NOW)
    assert [warning.partition(" expires on ")[0] for warning in checked.warnings] == ["CN=root"] * warns


def test_certificate_without_server_purpose_is_refused(root: Pair) -> None:
    client = Kind(purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
    both = Kind(purposes=[ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    assert "serverAuth" in read_refusal("certificate", root, sign("pve", p256(), root, client))
    pair = sign("pve", p256(), root, both)
    assert certificates.check_certificates(root.certificate, pair.certificate, pair.key, "pve", NOW)


def test_rsa_certificate_needs_key_encipherment(root: Pair) -> None:
    key = rsa.generate_private_key(65537, 2048)
    signs, enciphers = Kind(usages=["digital_signature"]), Kind(usages=["digital_signature", "key_encipherment"])
    assert "keyEncipherment" in read_refusal("certificate", root, sign("pve", key, root, signs))
    for pair in (sign("pve", key, root, enciphers), sign("pve", p256(), root, signs)):
        assert certificates.check_certificates(root.certificate, pair.certificate, pair.key, "pve", NOW)


def test_key_of_another_certificate_is_refused(root: Pair) -> None:
    pair, other = sign("pve", p256(), root), sign("other", p256(), root)
    assert "it does not belong to CN=pve" in read_refusal("key", root, pair, key=other.key)


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())], ids=["ed25519", "secp256k1"]
)
def test_unsupported_key_types_are_refused(root: Pair, key: Any) -> None:
    assert "P-256, P-384 or P-521" in read_refusal("key", root, sign("pve", key, root))


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_encrypted_key_is_refused(root: Pair, form: serialization.PrivateFormat) -> None:
    key = p256()
    sealed = key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"x"))
    assert "it is encrypted" in read_refusal("key", root, sign("pve", key, root), key=sealed.decode())


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n"])
def test_text_that_is_not_pem_is_refused(root: Pair, text: str) -> None:
    pair = sign("pve", p256(), root)
    assert "not a valid certificate in PEM" in read_refusal("certificate", root, Pair(text, pair.key))
    assert "not a valid certificate in PEM" in read_refusal("ca", Pair(text, ""), pair)
    broken = text.replace("CERTIFICATE", "PRIVATE KEY") or pair.certificate
    assert "not a valid private key in PEM" in read_refusal("key", root, pair, key=broken)
