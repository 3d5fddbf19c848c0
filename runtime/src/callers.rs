//! Authentication of callers: by bearer token, by client certificate, or not at all.
//!
//! A service that requires tokens requires them of every call, also over mutual TLS: the identity is the
//! token's. With mutual TLS alone it is the client certificate's, with the grants of a file.

use std::sync::{Arc, Once};

use anyhow::{bail, ensure};
use http::HeaderMap;
use usher_proto::rpc::Rpc;

use self::{certificates::CertificateGrants, jwks::Keys};
use crate::{
    caller::{Caller, parse_subject},
    config::CallerArgs,
    tls::{Peer, Tls},
};

mod certificates;
mod jwks;
mod jwt;
mod remote_keys;

/// Who may call a service, and over what.
#[derive(Debug, Clone)]
pub struct Callers {
    identities: Arc<Identities>,
    tls: Option<Arc<Tls>>,
}

/// How callers prove who they are.
#[derive(Debug)]
enum Identities {
    /// Not at all: the header `usher-caller` is trusted as sent.
    Unauthenticated,
    /// By a bearer token, signed with one of these keys.
    Tokens(Keys),
    /// By the certificate of their connection.
    Certificates(CertificateGrants),
}

/// What was wrong with a caller: a label of few values, for metrics and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) &'static str);

impl Callers {
    /// Checks the settings and reads their files. Fetches nothing yet.
    ///
    /// # Errors
    /// If callers are neither authenticated nor openly let in without, settings contradict each other, or a
    /// file cannot be used; the message names the settings.
    pub fn from_args(args: &CallerArgs) -> anyhow::Result<Self> {
        let tls = Tls::from_args(&args.tls)?.map(Arc::new);
        let identities = Arc::new(identities(args)?);
        Ok(Self { identities, tls })
    }

    /// The certificates of the server; `None` without TLS.
    pub(crate) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// Takes over changed files and keys; never ends.
    pub(crate) async fn follow_changes(&self) {
        let tls = async {
            match &self.tls {
                Some(tls) => tls.follow_files().await,
                None => std::future::pending().await,
            }
        };
        let identities = async {
            match &*self.identities {
                Identities::Unauthenticated => std::future::pending().await,
                Identities::Tokens(keys) => keys.follow_changes().await,
                Identities::Certificates(grants) => grants.follow_file().await,
            }
        };
        tokio::join!(tls, identities);
    }

    /// Who sends a request with these headers over the connection of `peer`.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<Caller, Refusal> {
        match &*self.identities {
            Identities::Unauthenticated => trusted_header(headers),
            Identities::Tokens(keys) => jwt::caller(keys, headers).await,
            Identities::Certificates(grants) => {
                let name = peer.and_then(|peer| peer.certificate_name.as_deref());
                grants.caller(name.ok_or(Refusal("certificate_name"))?)
            }
        }
    }
}

fn identities(args: &CallerArgs) -> anyhow::Result<Identities> {
    // Two services may share the process and its log.
    static WARNED: Once = Once::new();
    let has_tokens = args.jwt_jwks_file.is_some() || args.jwt_jwks_url.is_some();
    let has_certificates = args.tls.tls_client_ca_file.is_some();
    if args.allow_unauthenticated {
        ensure!(
            !has_tokens && !has_certificates && args.caller_grants_file.is_none(),
            "ALLOW_UNAUTHENTICATED authenticates nobody: take it away, or JWT_JWKS_FILE, JWT_JWKS_URL, \
             TLS_CLIENT_CA_FILE and CALLER_GRANTS_FILE"
        );
        WARNED.call_once(|| {
            tracing::warn!(
                "callers are not authenticated (ALLOW_UNAUTHENTICATED): everybody who reaches the gRPC port may \
                 do everything"
            );
        });
        return Ok(Identities::Unauthenticated);
    }
    if let Some(keys) = Keys::from_args(args)? {
        ensure!(
            args.caller_grants_file.is_none(),
            "CALLER_GRANTS_FILE has no effect together with tokens, which hold the grants: take one of them away"
        );
        return Ok(Identities::Tokens(keys));
    }
    match (has_certificates, &args.caller_grants_file) {
        (true, Some(file)) => Ok(Identities::Certificates(CertificateGrants::read(file)?)),
        (true, None) => bail!(
            "TLS_CLIENT_CA_FILE without tokens needs CALLER_GRANTS_FILE, which says what each certificate may do"
        ),
        (false, Some(_)) => bail!("CALLER_GRANTS_FILE needs TLS_CLIENT_CA_FILE"),
        (false, None) => bail!(
            "callers are not authenticated: set JWT_JWKS_FILE or JWT_JWKS_URL with JWT_ISSUER and JWT_AUDIENCE, \
             or TLS_CLIENT_CA_FILE with CALLER_GRANTS_FILE; or, to let everybody in who reaches the gRPC port, \
             ALLOW_UNAUTHENTICATED=true"
        ),
    }
}

/// The caller that the header `usher-caller` names; `anonymous` without one.
fn trusted_header(headers: &HeaderMap) -> Result<Caller, Refusal> {
    let subject = match headers.get("usher-caller") {
        Some(value) => value.to_str().map_err(|_| Refusal("subject"))?,
        None => "anonymous",
    };
    let subject = parse_subject(subject).map_err(|_| Refusal("subject"))?;
    Ok(Caller::unrestricted(subject.to_owned()))
}

/// Refuses a contract that forgot to protect an RPC.
///
/// # Errors
/// Names the first RPC without a scope.
pub(crate) fn require_scopes(rpcs: &[Rpc]) -> anyhow::Result<()> {
    match rpcs.iter().find(|rpc| rpc.scope.is_empty()) {
        Some(rpc) => bail!(
            "{} declares no scope: set the option (usher.options.v1.scope) in its .proto file",
            rpc.path
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        callers: CallerArgs,
    }

    fn refused(settings: &[&str]) -> String {
        let arguments = ["test"].iter().chain(settings);
        let settings = Settings::try_parse_from(arguments).unwrap();
        format!("{:#}", Callers::from_args(&settings.callers).unwrap_err())
    }

    #[test]
    fn a_service_without_authentication_does_not_start_by_accident() {
        let message = refused(&[]);
        for setting in [
            "JWT_JWKS_FILE",
            "JWT_JWKS_URL",
            "TLS_CLIENT_CA_FILE",
            "ALLOW_UNAUTHENTICATED",
        ] {
            assert!(message.contains(setting), "{setting}: {message}");
        }
        let settings = Settings::parse_from(["test", "--allow-unauthenticated"]);
        assert!(Callers::from_args(&settings.callers).is_ok());
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (settings, named) in [
            (
                &["--allow-unauthenticated", "--caller-grants-file=x"][..],
                "CALLER_GRANTS_FILE",
            ),
            (
                &["--allow-unauthenticated", "--jwt-jwks-file=x"],
                "JWT_JWKS_FILE",
            ),
            (
                &["--jwt-jwks-file=x", "--jwt-jwks-url=https://x/"],
                "not both",
            ),
            (&["--jwt-jwks-file=x", "--jwt-issuer=x"], "JWT_AUDIENCE"),
            (&["--jwt-jwks-file=x", "--jwt-audience=x"], "JWT_ISSUER"),
            (&["--jwt-issuer=x", "--jwt-audience=x"], "JWT_JWKS_URL"),
            (&["--jwt-ca-file=x"], "JWT_JWKS_URL"),
            (&["--caller-grants-file=x"], "TLS_CLIENT_CA_FILE"),
            (&["--tls-key-file=x"], "TLS_CERTIFICATE_FILE"),
            (&["--tls-certificate-file=x"], "TLS_KEY_FILE"),
            (&["--tls-client-ca-file=x"], "TLS_CERTIFICATE_FILE"),
            (
                &["--tls-certificate-file=/none", "--tls-key-file=/none"],
                "TLS_CERTIFICATE_FILE: cannot read /none",
            ),
        ] {
            let message = refused(settings);
            assert!(message.contains(named), "{settings:?}: {message}");
        }
    }

    #[test]
    fn an_rpc_without_a_scope_stops_the_start() {
        assert!(require_scopes(usher_proto::rpc::RPCS).is_ok());
        let forgotten = Rpc {
            service: "s",
            path: "/s/Forgotten",
            scope: "",
            is_client_streaming: false,
            is_server_streaming: false,
        };
        let error = require_scopes(&[usher_proto::rpc::RPCS[0], forgotten]).unwrap_err();
        assert!(error.to_string().contains("/s/Forgotten"), "{error}");
    }
}
