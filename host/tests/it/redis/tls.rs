//! A certificate authority that exists for one test, and a server certificate.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// The files in the TLS configuration of a server.
pub(crate) const CA: &str = "ca.pem";
pub(crate) const CERTIFICATE: &str = "certificate.pem";
pub(crate) const KEY: &str = "key.pem";

/// Writes a new authority, and a certificate for the loopback signed by it, into `dir`.
pub(crate) fn write_certificates(dir: &Path) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names are valid names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().expect("a key");
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names)
        .expect("valid names")
        .signed_by(&key, &issuer)
        .expect("a certificate");

    let write = |name: &str, text: String| {
        fs::write(dir.join(name), text).expect("a file of the temporary folder");
    };
    write(CA, ca_certificate.pem());
    write(CERTIFICATE, certificate.pem());
    write(KEY, key.serialize_pem());
}
