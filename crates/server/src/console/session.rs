//! Who is logged in: a cookie that scripts cannot read, and a token that pages of elsewhere cannot know.

use crate::error::ApiError;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// Name of the cookie that holds a login.
pub const COOKIE: &str = "perilune_session";
/// Header in which a page's script sends its token.
pub const TOKEN_HEADER: &str = "x-perilune-token";
/// Field in which a form sends its token.
pub const TOKEN_FIELD: &str = "form_token";
/// Time from a login to its end, used or not.
pub const SESSION_TIME: Duration = Duration::from_secs(12 * 3600);
/// Logins at once; the one that would end first makes room.
pub const SESSIONS_MAX: usize = 1_000;
/// Random bytes of a cookie and of a token.
const SECRET_BYTES: usize = 32;

/// All logins; clones are the same.
#[derive(Clone, Default)]
pub struct Sessions {
    open: Arc<Mutex<HashMap<[u8; 32], Kept>>>,
}

struct Kept {
    session: Session,
    until: Instant,
    fresh_key: Option<String>,
}

/// One login.
#[derive(Debug, Clone)]
pub struct Session {
    /// Digest of the cookie.
    id: [u8; 32],
    /// [`crate::store::digest`] of the key that was shown at the login.
    pub key_digest: [u8; 32],
    /// What every form and script of its pages sends along: 64 hexadecimal digits.
    pub token: String,
}

impl Session {
    /// Whether `sent` is this session's token, compared in constant time.
    #[must_use]
    pub fn is_token(&self, sent: &str) -> bool {
        self.token.as_bytes().ct_eq(sent.as_bytes()).into()
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Kept>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a login by the key of this digest; returns the cookie's value, 64 hexadecimal digits.
    ///
    /// # Errors
    /// Status 500: the system gives no random bytes.
    pub fn begin(&self, key_digest: [u8; 32]) -> Result<String, ApiError> {
        let (cookie, token, now) = (secret()?, secret()?, Instant::now());
        let id = Sha256::digest(cookie.as_bytes()).into();
        let mut open = self.lock();
        open.retain(|_, kept| kept.until > now);
        if open.len() >= SESSIONS_MAX {
            let first = open.iter().min_by_key(|(_, kept)| kept.until).map(|(id, _)| *id);
            first.map(|id| open.remove(&id));
        }
        let session = Session { id, key_digest, token };
        open.insert(id, Kept { session, until: now + SESSION_TIME, fresh_key: None });
        Ok(cookie)
    }

    /// The login of a request's cookie. Cookies are looked up by digest, so the time it takes tells nothing of them.
    #[must_use]
    pub fn of(&self, headers: &HeaderMap) -> Option<Session> {
        let id: [u8; 32] = Sha256::digest(cookie(headers)?.as_bytes()).into();
        let open = self.lock();
        open.get(&id).filter(|kept| kept.until > Instant::now()).map(|kept| kept.session.clone())
    }

    /// The login of a request that a script of our own pages sent: cookie and token.
    #[must_use]
    pub fn of_script(&self, headers: &HeaderMap) -> Option<Session> {
        let sent = headers.get(TOKEN_HEADER)?.to_str().ok()?;
        self.of(headers).filter(|session| session.is_token(sent))
    }

    /// Ends a login.
    pub fn end(&self, session: &Session) {
        self.lock().remove(&session.id);
    }

    /// Keeps a key that was just made until the next page shows it.
    pub(super) fn put_fresh_key(&self, session: &Session, key: String) {
        if let Some(kept) = self.lock().get_mut(&session.id) {
            kept.fresh_key = Some(key);
        }
    }

    /// The key that was just made, once.
    pub(super) fn take_fresh_key(&self, session: &Session) -> Option<String> {
        self.lock().get_mut(&session.id)?.fresh_key.take()
    }
}

/// The value of our cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

fn secret() -> Result<String, ApiError> {
    let mut bytes = [0_u8; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| ApiError::internal(&error))?;
    let mut text = String::with_capacity(2 * SECRET_BYTES);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    Ok(text)
}
