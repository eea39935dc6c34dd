//! The cluster's secret, and the keys that follow from it: one for gossip, one for calls.

use std::fmt;

use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::hmac;

/// Shortest secret, bytes.
pub const KEY_BYTES_MIN: usize = 16;

/// A secret that all nodes of a cluster have and nobody else. It is never shown.
#[derive(Clone)]
pub struct ClusterKey(Prk);

/// The secret is too short to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster key has {0} bytes, at least {KEY_BYTES_MIN} are needed; `openssl rand -hex 32` makes one"
)]
pub struct KeyError(usize);

impl ClusterKey {
    /// Takes a setting's text; none if it is empty.
    ///
    /// # Errors
    /// It has fewer than [`KEY_BYTES_MIN`] bytes.
    pub fn from_setting(text: &str) -> Result<Option<Self>, KeyError> {
        match text.trim().as_bytes() {
            [] => Ok(None),
            secret if secret.len() < KEY_BYTES_MIN => Err(KeyError(secret.len())),
            secret => Ok(Some(Self(Salt::new(HKDF_SHA256, b"cambium cluster 1").extract(secret)))),
        }
    }

    /// What the keys of gossip packets are expanded from.
    pub(crate) fn gossip(&self) -> &Prk {
        &self.0
    }

    /// The key that authenticates calls within the cluster of this name.
    pub(crate) fn calls(&self, cluster: &str) -> hmac::Key {
        let info: [&[u8]; 2] = [b"calls", cluster.as_bytes()];
        hmac::Key::from(self.0.expand(&info, hmac::HMAC_SHA256).expect("a digest's length can be had"))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_long_and_silent() {
        assert!(ClusterKey::from_setting(" \n").unwrap().is_none());
        assert_eq!(ClusterKey::from_setting("short").unwrap_err(), KeyError(5));
        let key = ClusterKey::from_setting("a secret of nobody else\n").unwrap().unwrap();
        assert!(!format!("{key:?}").contains("secret"));
        let tag = hmac::sign(&key.calls("a"), b"x");
        assert!(hmac::verify(&key.calls("a"), b"x", tag.as_ref()).is_ok());
        assert!(hmac::verify(&key.calls("b"), b"x", tag.as_ref()).is_err(), "another cluster, another key");
    }
}
