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


def verified(pair: Pair, ca: Pair, name: str, now: datetime = NOW) -> None:
    """Verify by the rules of the web's browsers, which are stricter than NSS. Raises VerificationError."""
    store = Store([certificates.read_certificate("ca", ca.certificate)])
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(name))
    verifier.verify(certificates.read_certificate("certificate", pair.certificate), [])


# Making


def test_what_is_made_verifies_by_other_people_s_rules(ca: Pair, own: Pair) -> None:
    for when in (NOW - DAY, NOW, NOW + 10 * YEAR):
        verified(own, ca, "pve", when)
    for when in (NOW - 2 * DAY, NOW + 10 * YEAR + DAY):
        with pytest.raises(x509.verification.VerificationError):
            verified(own, ca, "pve", when)


def test_the_form_of_a_ca(ca: Pair) -> None:
    made = certificates.read_certificate("ca", ca.certificate)
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    assert made.subject.rfc4514_string() == "CN=our CA"
    assert made.not_valid_after_utc == NOW + 20 * YEAR


def test_the_form_of_a_host_s_certificate(ca: Pair, own: Pair) -> None:
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
    # a renewed CA has another number
    assert find(x509.AuthorityKeyIdentifier).value.authority_cert_serial_number is None
    assert made.not_valid_before_utc == NOW - DAY


def test_each_has_a_key_of_its_own(ca: Pair, own: Pair) -> None:
    assert len({ca.key, own.key, certificates.issue_certificate(ca, "pve", NAMES, NOW).key}) == 3
    assert certificates.is_key_of(own.certificate, own.key)
    assert not certificates.is_key_of(own.certificate, ca.key)


def test_a_renewed_ca_and_the_old_one_verify_each_other_s(ca: Pair, own: Pair) -> None:
    later = NOW + 9 * YEAR
    renewed = certificates.make_ca("", later, ca)
    assert renewed.key == ca.key
    assert renewed.certificate != ca.certificate
    verified(own, renewed, "pve", later)
    verified(certificates.issue_certificate(renewed, "pve", NAMES, later), ca, "pve", later)
    assert certificates.read_certificate("ca", renewed.certificate).not_valid_after_utc == later + 20 * YEAR


def test_a_host_with_a_long_name(ca: Pair) -> None:
    made = certificates.read_certificate(
        "certificate", certificates.issue_certificate(ca, "x" * 70, NAMES, NOW).certificate
    )
    assert made.subject.rfc4514_string() == "CN=" + "x" * 64


@pytest.mark.parametrize("name", ["pve", "pve-1.home.lan", "a_b", "192.0.2.2", "fd00::2", "fe80::1%eth0", "*.home.lan"])
def test_names_that_a_certificate_can_carry(ca: Pair, name: str) -> None:
    assert certificates.is_name(name)
    made = certificates.issue_certificate(ca, "pve", [name], NOW)
    assert certificates.covers_name(certificates.read_certificate("certificate", made.certificate), name)


@pytest.mark.parametrize("name", ["", "büro", "a b", "a..b", ".a", "a.", "x" * 64, "pve:3493", "[::1]", "a.*", "a/b"])
def test_names_that_it_cannot_carry(name: str) -> None:
    assert not certificates.is_name(name)


# Renewing


def test_a_good_one_stays(ca: Pair, own: Pair) -> None:
    for when in (NOW, NOW + 7 * YEAR):
        assert certificates.needs_renewal(own, ca.certificate, NAMES, when) == ""
    assert certificates.needs_renewal(own, ca.certificate, NAMES[:2], NOW) == ""


def test_one_is_renewed_three_years_before_its_end(ca: Pair, own: Pair) -> None:
    assert certificates.needs_renewal(own, ca.certificate, NAMES, NOW + 7 * YEAR + DAY) == "it ends at 2036-11-19"


def test_one_that_has_expired_is_renewed(ca: Pair, own: Pair) -> None:
    assert "expired" in certificates.needs_renewal(own, ca.certificate, NAMES, NOW + 10 * YEAR + DAY)


def test_new_names(ca: Pair, own: Pair) -> None:
    assert certificates.needs_renewal(own, ca.certificate, [*NAMES, "nut", "192.0.2.9"], NOW) == (
        "it does not cover nut, 192.0.2.9"
    )


def test_another_ca(ca: Pair, own: Pair) -> None:
    # of the same name, even
    other = certificates.make_ca("our CA", NOW)
    assert "was signed by CN=our CA, which is neither" in certificates.needs_renewal(own, other.certificate, NAMES, NOW)
    renewed = certificates.make_ca("", NOW, ca)
    assert certificates.needs_renewal(own, renewed.certificate, NAMES, NOW) == ""


def test_files_that_are_broken(ca: Pair, own: Pair) -> None:
    for pair in (Pair(own.certificate, ""), Pair("", own.key), Pair(own.certificate, ca.key)):
        assert certificates.needs_renewal(pair, ca.certificate, NAMES, NOW)


def test_a_ca_is_renewed_while_it_outlives_what_it_signs(ca: Pair) -> None:
    assert not certificates.is_ca_ending(ca.certificate, NOW + 8 * YEAR)
    assert certificates.is_ca_ending(ca.certificate, NOW + 8 * YEAR + DAY)
    assert certificates.CA_LEFT > certificates.LIFE


# Those that somebody else has made


@dataclass
class Kind:
    """How a certificate is made that others may bring."""

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


def refused(part: str, ca: Pair, pair: Pair, name: str = "pve", key: str = "") -> str:
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
def test_what_will_do(root: Pair, key: Any) -> None:
    pair = sign("pve", key, root)
    checked = certificates.check_certificates(root.certificate, pair.certificate, pair.key, "pve", NOW)
    assert (checked.ca, checked.certificate, checked.warnings) == (root.certificate, pair.certificate, ())
    assert checked.key.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert certificates.is_key_of(checked.certificate, checked.key)


def test_texts_as_people_have_them(root: Pair) -> None:
    """openssl writes words around a certificate, and the curve before a key; some keep both in one file."""
    pair = sign("pve", p256(), root)
    curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    both = f"Certificate:\r\n    Data:\n{pair.key}{pair.certificate}"
    checked = certificates.check_certificates(
        f"# our root\n{root.certificate}", both, f"\n{curve}{pair.key}", "pve", NOW
    )
    assert (checked.ca, checked.certificate) == (root.certificate, pair.certificate)


def test_intermediates(root: Pair) -> None:
    first = sign("first", p256(), root, AUTHORITY)
    second = sign("second", p256(), first, AUTHORITY)
    pair = sign("pve", p256(), second)
    # in any order, and with the root, which some send along
    text = pair.certificate + root.certificate + first.certificate + second.certificate
    assert certificates.check_certificates(root.certificate, text, pair.key, "pve", NOW).certificate == text
    # who trusts an intermediate needs no root
    assert (
        certificates.check_certificates(second.certificate, pair.certificate, pair.key, "pve", NOW).ca
        == second.certificate
    )
    lacking = refused("certificate", root, Pair(pair.certificate + first.certificate, pair.key))
    assert lacking.startswith("CN=pve was signed by CN=second, which is neither the CA nor an intermediate")


def test_several_authorities(root: Pair) -> None:
    other = sign("other", p256(), kind=AUTHORITY)
    pair = sign("pve", p256(), root)
    both = other.certificate + root.certificate
    assert certificates.check_certificates(both, pair.certificate, pair.key, "pve", NOW).ca == both


def test_a_certificate_that_is_its_own_authority() -> None:
    pair = sign("pve", p256(), kind=Kind(authority=True))
    assert certificates.check_certificates(pair.certificate, pair.certificate, pair.key, "pve", NOW)
    # NSS refuses one that is not marked so
    pair = sign("pve", p256())
    assert "was signed by CN=pve, which is neither" in refused("certificate", pair, pair)


def test_authorities_that_signed_each_other(root: Pair) -> None:
    """A chain that goes round has an end."""
    left, right = p256(), p256()
    one = sign("left", left, kind=AUTHORITY)
    two = sign("right", right, one, AUTHORITY)
    again = sign("left", left, two, AUTHORITY)
    pair = sign("pve", p256(), Pair(again.certificate, one.key))
    text = pair.certificate + again.certificate + two.certificate
    assert "which is neither the CA" in refused("certificate", root, Pair(text, pair.key))


def test_an_authority_that_is_none(root: Pair) -> None:
    host = sign("host", p256(), root)
    pair = sign("pve", p256(), host)
    assert "was signed by CN=host" in refused("certificate", root, Pair(pair.certificate + host.certificate, pair.key))


def test_a_signature_of_somebody_else_by_the_same_name(root: Pair) -> None:
    pair = sign("pve", p256(), sign("root", p256(), kind=AUTHORITY))
    assert "was signed by CN=root, which is neither" in refused("certificate", root, pair)


@pytest.mark.parametrize("name", ["pve.home.lan", "PVE.Home.LAN", "nut.lan", "192.0.2.2", "2001:db8:0::2"])
def test_names_that_are_covered(root: Pair, name: str) -> None:
    pair = sign("pve", p256(), root, Kind(names=("*.home.lan", "NUT.lan", "192.0.2.2", "2001:db8::2")))
    assert certificates.check_certificates(root.certificate, pair.certificate, pair.key, name, NOW)


@pytest.mark.parametrize("name", ["home.lan", ".home.lan", "pve.lan", "a.pve.home.lan", "192.0.2.3", "192.0.2", "pve"])
def test_names_that_are_not_covered(root: Pair, name: str) -> None:
    pair = sign("pve", p256(), root, Kind(names=("*.home.lan", "192.0.2.2", "*.0.2.3", "*.lan")))
    why = refused("certificate", root, pair, name)
    assert why.startswith(f"it is for *.home.lan, 192.0.2.2, *.0.2.3, *.lan, and not for {name}, by which secondaries")


def test_a_common_name_is_no_name(root: Pair) -> None:
    pair = sign("pve", p256(), root, Kind(names=()))
    assert refused("certificate", root, pair).startswith("it is for no name at all (subjectAltName), and not for pve")


def test_time(root: Pair) -> None:
    def lasting(begins: int, ends: int, signer: Pair = root) -> Pair:
        return sign("pve", p256(), signer, Kind(begins=begins * DAY, ends=ends * DAY))

    old = Kind(names=(), authority=True, begins=-9 * DAY, ends=-DAY)
    assert "CN=pve has expired, at 2026-11-21" in refused("certificate", root, lasting(-9, -1))
    assert "CN=pve is not valid before 2026-11-23" in refused("certificate", root, lasting(1, 9))
    expired = sign("old", p256(), kind=old)
    assert "CN=old has expired" in refused("ca", expired, lasting(-9, 99, expired))
    between = sign("between", p256(), root, old)
    pair = lasting(-9, 99, between)
    assert "CN=between has expired" in refused(
        "certificate", root, Pair(pair.certificate + between.certificate, pair.key)
    )


@pytest.mark.parametrize(("days", "warns"), [(29, True), (31, False)])
def test_an_end_that_is_near(days: int, warns: bool) -> None:
    """Whatever of the chain ends first."""
    soon = Kind(names=(), authority=True, ends=days * DAY)
    root = sign("root", p256(), kind=soon)
    pair = sign("pve", p256(), root)
    checked = certificates.check_certificates(root.certificate, pair.certificate, pair.key, "pve", NOW)
    assert [one.partition(" ends at ")[0] for one in checked.warnings] == ["CN=root"] * warns


def test_what_nss_takes_for_no_server(root: Pair) -> None:
    client = Kind(purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
    both = Kind(purposes=[ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    assert "serverAuth" in refused("certificate", root, sign("pve", p256(), root, client))
    pair = sign("pve", p256(), root, both)
    assert certificates.check_certificates(root.certificate, pair.certificate, pair.key, "pve", NOW)


def test_nss_wants_key_encipherment_of_rsa(root: Pair) -> None:
    key = rsa.generate_private_key(65537, 2048)
    signs, enciphers = Kind(usages=["digital_signature"]), Kind(usages=["digital_signature", "key_encipherment"])
    assert "keyEncipherment" in refused("certificate", root, sign("pve", key, root, signs))
    for pair in (sign("pve", key, root, enciphers), sign("pve", p256(), root, signs)):
        assert certificates.check_certificates(root.certificate, pair.certificate, pair.key, "pve", NOW)


def test_a_key_of_another(root: Pair) -> None:
    pair, other = sign("pve", p256(), root), sign("other", p256(), root)
    assert "it is not the key of CN=pve" in refused("key", root, pair, key=other.key)


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())], ids=["ed25519", "secp256k1"]
)
def test_keys_that_nss_does_not_take(root: Pair, key: Any) -> None:
    assert "P-256, P-384 or P-521 only" in refused("key", root, sign("pve", key, root))


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key(root: Pair, form: serialization.PrivateFormat) -> None:
    key = p256()
    sealed = key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"x"))
    assert "it is encrypted" in refused("key", root, sign("pve", key, root), key=sealed.decode())


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n"])
def test_texts_that_are_no_pem(root: Pair, text: str) -> None:
    pair = sign("pve", p256(), root)
    assert "no certificate in PEM" in refused("certificate", root, Pair(text, pair.key))
    assert "no certificate in PEM" in refused("ca", Pair(text, ""), pair)
    broken = text.replace("CERTIFICATE", "PRIVATE KEY") or pair.certificate
    assert "no private key in PEM" in refused("key", root, pair, key=broken)
