//! Encryption of connections.

use crate::error::ServeError;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// What makes connections TLS 1.2 or 1.3 with a certificate chain and its private key, both in PEM.
///
/// # Errors
/// [`ServeError::Tls`].
pub(crate) fn acceptor(certificates: &[u8], key: &[u8]) -> Result<TlsAcceptor, ServeError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(|e| ServeError::Tls(format!("certificate: {e}")))?;
    if chain.is_empty() {
        return Err(ServeError::Tls("there is no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| ServeError::Tls(format!("private key: {e}")))?;
    let fits = |e: rustls::Error| ServeError::Tls(e.to_string());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(fits)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(fits)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
