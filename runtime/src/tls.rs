//! TLS of the gRPC server, and who is at the other end of its connections.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{anyhow, ensure};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, DnsName, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_parser::extensions::GeneralName;

use crate::{config::TlsArgs, watched_files::WatchedFiles};

/// The certificates of the server, as they are at the moment.
#[derive(Debug)]
pub(crate) struct Tls {
    files: WatchedFiles,
    /// Replaced as a whole: with it goes the session store, from which a client whose authority was removed
    /// could resume.
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// TLS as the settings want it; `None` without a certificate.
    ///
    /// # Errors
    /// If a file is missing, cannot be read or cannot be used; the message names the setting.
    pub(crate) fn from_args(args: &TlsArgs) -> anyhow::Result<Option<Self>> {
        let (certificate, key) = match (&args.tls_certificate_file, &args.tls_key_file) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) if args.tls_client_ca_file.is_some() => {
                anyhow::bail!("TLS_CLIENT_CA_FILE needs TLS_CERTIFICATE_FILE and TLS_KEY_FILE")
            }
            (None, None) => return Ok(None),
            _ => anyhow::bail!("set both of TLS_CERTIFICATE_FILE and TLS_KEY_FILE, or neither"),
        };
        let mut files = vec![
            ("TLS_CERTIFICATE_FILE", certificate.clone()),
            ("TLS_KEY_FILE", key.clone()),
        ];
        if let Some(authorities) = &args.tls_client_ca_file {
            files.push(("TLS_CLIENT_CA_FILE", authorities.clone()));
        }
        let (files, contents) = WatchedFiles::read(files)?;
        let current = RwLock::new(Arc::new(server_config(&files, &contents)?));
        Ok(Some(Self { files, current }))
    }

    /// Takes over the files whenever they change; never ends.
    pub(crate) async fn follow_files(&self) {
        self.files
            .follow(|contents| {
                let config = Arc::new(server_config(&self.files, contents)?);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                Ok(())
            })
            .await;
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }
}

/// From certificate, key and, for mutual TLS, the clients' authorities.
fn server_config(files: &WatchedFiles, contents: &[Vec<u8>]) -> anyhow::Result<ServerConfig> {
    let [certificate, key, authorities @ ..] = contents else {
        anyhow::bail!("no certificate");
    };
    let chain = certificates(&files.name(0), certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        let name = files.name(1);
        anyhow!("{name} holds no private key: {error}; write the key of the certificate there, in PEM, without a password")
    })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match authorities {
        [] => builder.with_no_client_auth(),
        [authorities, ..] => builder.with_client_cert_verifier(client_verifier(
            &files.name(2),
            authorities,
            provider,
        )?),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => anyhow!(
                "{} does not belong to the certificate of {}; write both files of one pair",
                files.name(1),
                files.name(0)
            ),
            rustls::Error::InvalidCertificate(_) => unusable(&files.name(0), &error),
            error => anyhow!(
                "{} cannot be used: {error}; write an RSA, ECDSA or Ed25519 key there",
                files.name(1)
            ),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn client_verifier(
    name: &str,
    authorities: &[u8],
    provider: Arc<CryptoProvider>,
) -> anyhow::Result<Arc<dyn rustls::server::danger::ClientCertVerifier>> {
    let roots = Arc::new(authorities_from(name, authorities)?);
    Ok(WebPkiClientVerifier::builder_with_provider(roots, provider).build()?)
}

/// The authorities in a file; `name` is its setting and path.
///
/// # Errors
/// If it holds none, or anything that is none.
pub(crate) fn authorities_from(name: &str, content: &[u8]) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(name, content)? {
        roots
            .add(authority)
            .map_err(|error| unusable(name, &error))?;
    }
    Ok(roots)
}

fn certificates(name: &str, content: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(name, &error))?;
    ensure!(
        !certificates.is_empty(),
        "{name} holds no certificate; write one there in PEM, which begins with `-----BEGIN CERTIFICATE-----`"
    );
    Ok(certificates)
}

fn unusable(name: &str, error: &dyn std::fmt::Display) -> anyhow::Error {
    anyhow!("{name} holds a certificate that cannot be used: {error}; write the file again")
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The name in the verified certificate; `None` without one, or if it holds no name or several.
    pub(crate) certificate_name: Option<Arc<str>>,
}

impl Peer {
    /// Over a connection without TLS.
    pub(crate) fn unknown() -> Self {
        Self {
            certificate_name: None,
        }
    }

    pub(crate) fn of(stream: &TlsStream<TcpStream>) -> Self {
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate_name = certificates
            .and_then(|chain| name_in(chain.first()?))
            .map(Arc::from);
        Self { certificate_name }
    }
}

/// The URI among the alternative names of a certificate; if there is none, the DNS name. As SPIFFE does
/// (X509-SVID, section 2), a certificate with several names is taken for nobody's, and malformed ones count. Only a
/// URI contains a `:`, so that neither is taken for the other.
fn name_in(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let alternatives = certificate.subject_alternative_name().ok()??.value;
    let (mut uris, mut names) = (Vec::new(), Vec::new());
    for name in &alternatives.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => names.push(*name),
            // Which of the two it was meant to be is not known.
            GeneralName::Invalid(..) => return None,
            _ => {}
        }
    }
    match (&uris[..], &names[..]) {
        (&[uri], _) if is_uri(uri) => Some(uri.to_owned()),
        (&[], &[name]) if DnsName::try_from(name).is_ok() => Some(name.to_owned()),
        _ => None,
    }
}

/// Whether it begins with a scheme (RFC 3986, section 3.1) and is printable.
fn is_uri(text: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    text.bytes().all(|byte| byte.is_ascii_graphic())
        && text
            .split_once(':')
            .is_some_and(|(scheme, _)| is_scheme(scheme))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, CustomExtension, KeyPair};
    use tempfile::TempDir;

    use super::*;

    /// A certificate with these alternative names, each a tag (RFC 5280, section 4.2.1.6) and its bytes.
    fn certificate_of(names: &[(u8, &[u8])]) -> CertificateDer<'static> {
        let mut content = Vec::new();
        for (tag, name) in names {
            content.extend([0x80 | tag, u8::try_from(name.len()).unwrap()]);
            content.extend(*name);
        }
        let mut extension = vec![0x30, u8::try_from(content.len()).unwrap()];
        extension.extend(content);
        let mut params = CertificateParams::default();
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(
                &[2, 5, 29, 17],
                extension,
            ));
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_with_one_name_has_it_and_others_have_none() {
        const EMAIL: u8 = 1;
        const DNS: u8 = 2;
        const URI: u8 = 6;
        let (uri, dns) = (&b"spiffe://a/b"[..], &b"a.example.org"[..]);
        let bad = &b"\xff"[..];
        for (names, expected) in [
            (&[(URI, uri)][..], Some("spiffe://a/b")),
            (&[(DNS, dns)], Some("a.example.org")),
            (&[(DNS, dns), (URI, uri)], Some("spiffe://a/b")),
            (
                &[(DNS, dns), (EMAIL, b"a@example.org")],
                Some("a.example.org"),
            ),
            (&[(URI, bad), (DNS, dns)], None),
            (&[(URI, uri), (URI, bad)], None),
            (&[(URI, bad), (URI, uri)], None),
            (&[(URI, uri), (URI, uri)], None),
            (&[(DNS, dns), (DNS, bad)], None),
            (&[(DNS, dns), (DNS, b"not a name")], None),
            (&[(DNS, dns), (DNS, b"b.example.org")], None),
            (&[(EMAIL, b"a@example.org")], None),
            // Neither counts as a name of the other kind.
            (&[(URI, dns)], None),
            (&[(URI, b"")], None),
            (&[(URI, b":a")], None),
            (&[(DNS, uri)], None),
            (&[(DNS, b"*.example.org")], None),
        ] {
            let name = name_in(&certificate_of(names));
            assert_eq!(name.as_deref(), expected, "{names:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_what_to_do() {
        let pair = || {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap().pem();
            (certificate, key.serialize_pem())
        };
        let ((certificate, key), (_, other_key)) = (pair(), pair());
        let pem = |label: &str, content: &str| {
            format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n")
        };
        let garbled = pem("CERTIFICATE", "not base64!");
        let not_der = pem("CERTIFICATE", "AAAA");
        let no_key = pem("PRIVATE KEY", "AAAA");
        let directory = TempDir::new().unwrap();
        let refused = |certificate: &str, key: &str, authorities: &str| {
            let write = |name: &str, content: &str| {
                let path = directory.path().join(name);
                fs::write(&path, content).unwrap();
                Some(path)
            };
            let args = TlsArgs {
                tls_certificate_file: write("server.pem", certificate),
                tls_key_file: write("server.key", key),
                tls_client_ca_file: write("clients.pem", authorities),
            };
            Tls::from_args(&args).unwrap_err().to_string()
        };
        let of_certificate = ["TLS_CERTIFICATE_FILE: /", "/server.pem holds ", "; write "];
        let of_key = ["TLS_KEY_FILE: /", "/server.key ", "; write "];
        let of_authorities = ["TLS_CLIENT_CA_FILE: /", "/clients.pem holds ", "; write "];
        for (message, said) in [
            (refused("", &key, &certificate), of_certificate),
            (refused(&garbled, &key, &certificate), of_certificate),
            (refused(&not_der, &key, &certificate), of_certificate),
            (refused(&certificate, "", &certificate), of_key),
            (refused(&certificate, &certificate, &certificate), of_key),
            (refused(&certificate, &no_key, &certificate), of_key),
            (refused(&certificate, &other_key, &certificate), of_key),
            (refused(&certificate, &key, ""), of_authorities),
            (refused(&certificate, &key, &not_der), of_authorities),
        ] {
            for part in said {
                assert!(message.contains(part), "{part}: {message}");
            }
        }
    }
}
