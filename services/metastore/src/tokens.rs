//! Bearer tokens: created by an operator, shown once, kept only as a hash.
//!
//! Laws: whoever reads the store cannot use a token; a revoked token stops working within [`TOKEN_CACHE_TTL`] on every
//! node; a token allows only what it was created for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cambium_model::tenant::TenantId;
use cambium_proto::wire::metastore as stored;
use cambium_proto::wire::metastore::token_record as stored_token;
use cambium_runtime::clock::Clock;
use cambium_runtime::error::{self, HasKind};
use cambium_runtime::tenancy::Access;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::error::{Error as StoreError, decode};
use crate::keys::{self, Kind};
use crate::kv::{self, KvStore, Step, Txn};

/// How long a token that was found is believed to exist.
pub const TOKEN_CACHE_TTL: Duration = Duration::from_secs(10);

/// Tokens remembered by a process.
const TOKENS_CACHED_MAX: u64 = 10_000;

/// What a token's text begins with, so that scanners for leaked secrets can tell it.
const PREFIX: &str = "cambium_";

/// What stands for every tenant.
const ALL_TENANTS: &str = "*";

/// Why tokens could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed, or holds a corrupt value.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A set of tenants names `*`, which is a possible tenant name but would read as all of them.
    #[error("a token for a set of tenants cannot name '*'")]
    StarTenant,
    /// There is no token with this hash.
    #[error("there is no token {hash}")]
    Unknown {
        /// The hash asked for.
        hash: TokenHash,
    },
}

impl From<kv::Error> for Error {
    fn from(error: kv::Error) -> Self {
        Self::Store(error.into())
    }
}

impl HasKind for Error {
    fn kind(&self) -> error::Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::StarTenant => error::Kind::Invalid,
            Self::Unknown { .. } => error::Kind::NotFound,
        }
    }
}

/// SHA-256 of a token's text: what the store knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash of a token as the client sends it.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which tenants a token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every tenant.
    All,
    /// These.
    Tenants(BTreeSet<TenantId>),
}

impl Scope {
    /// Whether the tenant is in the scope.
    pub fn allows(&self, tenant: &TenantId) -> bool {
        match self {
            Self::All => true,
            Self::Tenants(tenants) => tenants.contains(tenant),
        }
    }
}

/// What a token is created for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What the operator calls it; may be empty.
    pub name: String,
    /// Which tenants it opens.
    pub scope: Scope,
    /// What it may do there.
    pub access: Vec<Access>,
}

/// A token as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is found by.
    pub hash: TokenHash,
    /// What it is good for.
    pub grant: Grant,
    /// When it was created, nanoseconds since the epoch.
    pub created_ns: i64,
}

/// The tokens of a cluster.
#[derive(Debug)]
pub struct Tokens {
    store: Arc<dyn KvStore>,
    clock: Arc<dyn Clock>,
    /// Tokens, and when they were read.
    cache: moka::sync::Cache<TokenHash, (Arc<Token>, Duration)>,
}

impl Tokens {
    /// The tokens kept in `store`; the clock dates and ages them.
    pub fn new(store: Arc<dyn KvStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, cache: moka::sync::Cache::new(TOKENS_CACHED_MAX) }
    }

    /// Creates a token from 32 bytes of the system's random source, and returns its text, which is kept nowhere.
    pub async fn create(&self, secret: [u8; 32], grant: Grant) -> Result<(String, Token), Error> {
        let text = format!("{PREFIX}{}", TokenHash(secret));
        let hash = TokenHash::of(&text);
        let token = Token { hash, grant, created_ns: self.clock.now_ns() };
        let value = write(&token)?.encode_to_vec();
        let value = &value;
        kv::transact(&*self.store, |snapshot| async move {
            let key = keys::token(&hash.0);
            if snapshot.get(&key).await?.as_ref().is_some_and(|stored| stored == value) {
                return Ok(Step::Done(()));
            }
            Ok::<_, Error>(Step::Commit(Txn::new().expect(key.clone(), None).put(key, value.clone()), ()))
        })
        .await?;
        Ok((text, token))
    }

    /// The token with this hash, if it was created and not revoked. May be [`TOKEN_CACHE_TTL`] old.
    pub async fn lookup(&self, hash: TokenHash) -> Result<Option<Arc<Token>>, Error> {
        let now = self.clock.monotonic();
        if let Some((token, read)) = self.cache.get(&hash)
            && now.saturating_sub(read) < TOKEN_CACHE_TTL
        {
            return Ok(Some(token));
        }
        let value = self.store.snapshot().await?.get(&keys::token(&hash.0)).await?;
        let Some(value) = value else {
            self.cache.invalidate(&hash);
            return Ok(None);
        };
        let token = Arc::new(read(&value)?);
        self.cache.insert(hash, (Arc::clone(&token), now));
        Ok(Some(token))
    }

    /// All tokens, sorted by hash.
    pub async fn list(&self) -> Result<Vec<Token>, Error> {
        let snapshot = self.store.snapshot().await?;
        let records = kv::scan_all(&*snapshot, keys::tokens()).await?;
        records.iter().map(|(_, value)| read(value)).collect()
    }

    /// Removes a token: other nodes refuse it within [`TOKEN_CACHE_TTL`]. [`Error::Unknown`] if there is none.
    pub async fn revoke(&self, hash: TokenHash) -> Result<(), Error> {
        let mut attempted = false;
        let attempted = &mut attempted;
        kv::transact(&*self.store, |snapshot| {
            let again = std::mem::replace(attempted, true);
            async move {
                let key = keys::token(&hash.0);
                match snapshot.get(&key).await? {
                    Some(value) => {
                        Ok(Step::Commit(Txn::new().expect(key.clone(), Some(value)).delete(key), ()))
                    }
                    // Gone in a second attempt: by an undetermined first one, or by somebody who was faster.
                    None if again => Ok(Step::Done(())),
                    None => Err(Error::Unknown { hash }),
                }
            }
        })
        .await?;
        self.cache.invalidate(&hash);
        Ok(())
    }
}

fn write(token: &Token) -> Result<stored::TokenRecord, Error> {
    let tenants = match &token.grant.scope {
        Scope::All => vec![ALL_TENANTS.to_owned()],
        Scope::Tenants(tenants) if tenants.iter().any(|tenant| tenant.as_str() == ALL_TENANTS) => {
            return Err(Error::StarTenant);
        }
        Scope::Tenants(tenants) => tenants.iter().map(ToString::to_string).collect(),
    };
    let access = |access: &Access| match access {
        Access::Read => stored_token::Access::Read as i32,
        Access::Write => stored_token::Access::Write as i32,
        Access::Admin => stored_token::Access::Admin as i32,
    };
    Ok(stored::TokenRecord {
        hash: token.hash.0.to_vec().into(),
        name: token.grant.name.clone(),
        tenants,
        access: token.grant.access.iter().map(access).collect(),
        created_ns: token.created_ns,
    })
}

fn read(value: &[u8]) -> Result<Token, Error> {
    let record: stored::TokenRecord = decode(Kind::Token, value)?;
    let corrupt = |source: &str| StoreError::corrupt(Kind::Token, source);
    let hash: [u8; 32] = record.hash[..].try_into().map_err(|_| corrupt("the hash has not 32 bytes"))?;
    let scope = if record.tenants == [ALL_TENANTS] {
        Scope::All
    } else {
        let tenants = record.tenants.iter().map(|name| TenantId::new(name)).collect::<Result<_, _>>();
        Scope::Tenants(tenants.map_err(|source| StoreError::corrupt(Kind::Token, source))?)
    };
    let access = record.access().map(|access| match access {
        stored_token::Access::Read => Ok(Access::Read),
        stored_token::Access::Write => Ok(Access::Write),
        stored_token::Access::Admin => Ok(Access::Admin),
        stored_token::Access::Unspecified => Err(corrupt("an access is not known")),
    });
    let access = access.collect::<Result<_, _>>()?;
    let grant = Grant { name: record.name, scope, access };
    Ok(Token { hash: TokenHash(hash), grant, created_ns: record.created_ns })
}

#[cfg(test)]
mod tests;
