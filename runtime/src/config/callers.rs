//! Who may call, and over what.

use std::path::PathBuf;

use clap::Args;

/// Authentication of callers. Checked by [`Callers::from_args`](crate::callers::Callers::from_args).
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Callers")]
pub struct CallerArgs {
    /// TLS of the gRPC server.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Bearer tokens: file with the issuer's public keys (a JSON Web Key Set); read again when it changes
    #[arg(long, env = "JWT_JWKS_FILE", help_heading = "Callers")]
    pub jwt_jwks_file: Option<PathBuf>,

    /// Bearer tokens: URL of the issuer's public keys, https only; fetched every 5 minutes, and when a token
    /// names an unknown key
    #[arg(
        long,
        env = "JWT_JWKS_URL",
        hide_env_values = true,
        help_heading = "Callers"
    )]
    pub jwt_jwks_url: Option<http::Uri>,

    /// Authorities to trust for `JWT_JWKS_URL` besides the system's (PEM)
    #[arg(long, env = "JWT_CA_FILE", help_heading = "Callers")]
    pub jwt_ca_file: Option<PathBuf>,

    /// What the claim `iss` of a token must be
    #[arg(long, env = "JWT_ISSUER", help_heading = "Callers")]
    pub jwt_issuer: Option<String>,

    /// What the claim `aud` of a token must be or hold
    #[arg(long, env = "JWT_AUDIENCE", help_heading = "Callers")]
    pub jwt_audience: Option<String>,

    /// Mutual TLS without tokens: JSON file that maps the name in a client's certificate, a URI
    /// (with its scheme) or a DNS name, to its `organization_id` and `scopes`; read again when it changes
    #[arg(long, env = "CALLER_GRANTS_FILE", help_heading = "Callers")]
    pub caller_grants_file: Option<PathBuf>,

    /// Authenticate nobody: every caller may do everything, and the header `usher-caller` is trusted as sent
    #[arg(long, env = "ALLOW_UNAUTHENTICATED", help_heading = "Callers")]
    pub allow_unauthenticated: bool,
}

/// TLS of the gRPC server. The files are read again when they change.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Certificate chain of the gRPC server (PEM); none serves without TLS
    #[arg(long, env = "TLS_CERTIFICATE_FILE")]
    pub tls_certificate_file: Option<PathBuf>,

    /// Private key of the certificate (PEM)
    #[arg(long, env = "TLS_KEY_FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// Mutual TLS: authorities that sign the certificates of clients (PEM); clients without one are refused
    #[arg(long, env = "TLS_CLIENT_CA_FILE")]
    pub tls_client_ca_file: Option<PathBuf>,
}
